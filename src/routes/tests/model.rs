//! Random tables and requests: the lookup against a matcher so plain that it is the definition.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
struct Words {
    host: Option<&'static str>,
    path: String,
    methods: Vec<&'static str>,
    header: Option<Cond>,
    query: Option<Cond>,
    from: Option<&'static str>,
    priority: i32,
}

#[derive(Clone, Copy, Debug)]
enum Cond {
    Exact(&'static str),
    Prefix(&'static str),
    Present(bool),
}

#[derive(Clone, Debug)]
struct Request {
    host: &'static str,
    path: String,
    method: &'static str,
    header: Option<&'static str>,
    query: Option<&'static str>,
    from: &'static str,
}

fn cond() -> impl Strategy<Value = Option<Cond>> {
    prop_oneof![
        4 => Just(None),
        1 => prop::sample::select(vec!["1", "12", "2"]).prop_map(|text| Some(Cond::Exact(text))),
        1 => prop::sample::select(vec!["1", "12"]).prop_map(|text| Some(Cond::Prefix(text))),
        1 => any::<bool>().prop_map(|there| Some(Cond::Present(there))),
    ]
}

fn words() -> impl Strategy<Value = Words> {
    let hosts = vec![None, Some("a.x"), Some("b.a.x"), Some("*.x"), Some("**.x"), Some("**.a.x")];
    let methods = vec![vec![], vec![], vec!["GET"], vec!["POST"], vec!["GET", "POST"], vec!["HEAD"]];
    let from = vec![None, None, Some("10.0.0.0/8"), Some("10.1.0.0/16"), Some("2001:db8::/32")];
    (
        prop::sample::select(hosts),
        "(/(a|b|[{]p[}])){0,1}(/(a|b|[{]q[}])){0,1}(/|/[*])",
        prop::sample::select(methods),
        cond(),
        cond(),
        prop::sample::select(from),
    )
        .prop_map(|(host, path, methods, header, query, from)| Words {
            host,
            path,
            methods,
            header,
            query,
            from,
            priority: 0,
        })
}

fn request() -> impl Strategy<Value = Request> {
    let hosts = vec!["a.x", "b.a.x", "c.a.x", "d.c.a.x", "b.x", "y"];
    (
        prop::sample::select(hosts),
        "(/(a|b|c)){0,3}/{0,1}",
        prop::sample::select(vec!["GET", "HEAD", "POST", "PUT"]),
        prop::sample::select(vec![None, Some("1"), Some("12"), Some("2"), Some("")]),
        prop::sample::select(vec![None, Some("1"), Some("12"), Some("2")]),
        prop::sample::select(vec!["10.1.2.3", "10.2.3.4", "192.0.2.1", "2001:db8::1"]),
    )
        .prop_map(|(host, path, method, header, query, from)| {
            let path = if path.is_empty() { "/".to_owned() } else { path };
            Request { host, path, method, header, query, from }
        })
}

fn toml(cond: Cond) -> String {
    match cond {
        Cond::Exact(text) => format!("'{text}'"),
        Cond::Prefix(text) => format!("{{ prefix = '{text}' }}"),
        Cond::Present(there) => format!("{{ present = {there} }}"),
    }
}

fn document(routes: &[Words]) -> String {
    let mut text = String::new();
    for (number, words) in routes.iter().enumerate() {
        text.push_str(&format!("[[route]]\nname = 'r{number}'\nrespond = {{}}\npriority = {}\n", words.priority));
        text.push_str(&format!("match.path = '{}'\nmatch.method = {:?}\n", words.path, words.methods));
        text.extend(words.host.map(|host| format!("match.host = '{host}'\n")));
        text.extend(words.from.map(|from| format!("match.from = '{from}'\n")));
        text.extend(words.header.map(|cond| format!("match.header.h = {}\n", toml(cond))));
        text.extend(words.query.map(|cond| format!("match.query.q = {}\n", toml(cond))));
    }
    text
}

fn asked(table: &Table, request: &Request) -> Explanation {
    let query = request.query.map(|value| format!("?q={value}")).unwrap_or_default();
    let header = request.header.map(|value| format!("\nh: {value}")).unwrap_or_default();
    let Request { host, path, method, from, .. } = request;
    ask(table, &format!("{method} http://{host}{path}{query}\nfrom: {from}{header}"))
}

/// Smaller is better.
fn host_rank(pattern: Option<&str>, host: &str) -> Option<(u8, usize)> {
    match pattern {
        None => Some((3, 0)),
        Some(pattern) if pattern == host => Some((0, 0)),
        Some(pattern) => {
            let deep = pattern.strip_prefix("**");
            let suffix = deep.or(pattern.strip_prefix('*'))?;
            let front = host.strip_suffix(suffix).filter(|front| !front.is_empty())?;
            if deep.is_some() { Some((2, 100 - suffix.len())) } else { (!front.contains('.')).then_some((1, 0)) }
        }
    }
}

/// Per segment 0 for a literal, 1 for a capture, 2 for the rest: smaller is better.
fn path_rank(pattern: &str, path: &str) -> Option<Vec<u8>> {
    let (pattern, rest) = match pattern.strip_suffix("/*") {
        Some(front) => (front, true),
        None => (pattern, false),
    };
    let wanted: Vec<&str> = pattern.split('/').skip(1).collect();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    if segments.len() < wanted.len() || !rest && segments.len() > wanted.len() {
        return None;
    }
    let mut rank = Vec::new();
    for (wanted, segment) in wanted.iter().zip(&segments) {
        rank.push(match wanted.starts_with('{') {
            true if segment.is_empty() => return None,
            true => 1,
            false if wanted == segment => 0,
            false => return None,
        });
    }
    rank.extend(rest.then_some(2));
    Some(rank)
}

fn holds(cond: Option<Cond>, value: Option<&str>) -> bool {
    match cond {
        None => true,
        Some(Cond::Exact(text)) => value == Some(text),
        Some(Cond::Prefix(text)) => value.is_some_and(|value| value.starts_with(text)),
        Some(Cond::Present(there)) => value.is_some() == there,
    }
}

fn strength(cond: Option<Cond>) -> (u8, usize) {
    match cond {
        None => (0, 0),
        Some(Cond::Present(_)) => (1, 0),
        Some(Cond::Prefix(text)) => (2, text.len()),
        Some(Cond::Exact(_)) => (3, 0),
    }
}

/// The routes that match and come first (more than one: nothing tells them apart), or `None` for 405; and all that match.
fn naive(routes: &[Words], request: &Request) -> (Option<Vec<usize>>, Vec<usize>) {
    let best_host = routes.iter().filter_map(|words| host_rank(words.host, request.host)).min();
    let mut by_pattern: std::collections::BTreeMap<Vec<u8>, Vec<usize>> = std::collections::BTreeMap::new();
    for (number, words) in routes.iter().enumerate() {
        let from: Option<ipnet::IpNet> = words.from.map(|from| from.parse().expect(from));
        let client: std::net::IpAddr = request.from.parse().expect(request.from);
        if host_rank(words.host, request.host) == best_host
            && best_host.is_some()
            && holds(words.header, request.header)
            && holds(words.query, request.query)
            && from.is_none_or(|network| network.contains(&client))
            && let Some(rank) = path_rank(&words.path, &request.path)
        {
            by_pattern.entry(rank).or_default().push(number);
        }
    }
    let takes = |number: &usize| {
        let methods = &routes[*number].methods;
        methods.is_empty() || methods.contains(&request.method) || request.method == "HEAD" && methods.contains(&"GET")
    };
    let matching: Vec<usize> = by_pattern.values().flatten().copied().filter(takes).collect();
    let Some(best) = by_pattern.values().next() else { return (Some(vec![]), matching) };
    let fit = |number: &usize| {
        let words = &routes[*number];
        let network = words.from.map(|from| from.rsplit_once('/').expect(from).1.parse::<u8>().expect(from) + 1);
        (!words.methods.is_empty(), strength(words.header), strength(words.query), network, words.priority)
    };
    let taking: Vec<usize> = best.iter().copied().filter(takes).collect();
    let Some(closest) = taking.iter().map(fit).max() else { return (None, matching) };
    (Some(taking.into_iter().filter(|number| fit(number) == closest).collect()), matching)
}

fn compare(table: &Table, routes: &[Words], request: &Request) -> Result<(), TestCaseError> {
    let (winners, matching) = naive(routes, request);
    let explanation = asked(table, request);
    let outcome = &explanation.outcome;
    match winners.as_deref() {
        None => prop_assert_eq!(outcome.code.as_deref(), Some("method_not_allowed")),
        Some([]) => prop_assert_eq!(outcome.code.as_deref(), Some("no_route")),
        Some([winner]) => prop_assert_eq!(outcome.route.clone(), Some(format!("r{winner}"))),
        Some(equal) => prop_assert!(false, "nothing tells {equal:?} apart, and compile did not say so"),
    }
    let mut seen: Vec<&str> = explanation.others.iter().map(|other| other.route.as_str()).collect();
    seen.extend(outcome.route.as_deref());
    seen.sort_unstable();
    seen.dedup();
    prop_assert_eq!(seen.len(), routes.len(), "each route is explained once");
    for other in &explanation.others {
        let number: usize = other.route[1..].parse().expect("number");
        prop_assert_eq!(other.lost_by == "less_specific", matching.contains(&number), "{:?}", other);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn find_and_explain_agree_with_the_model(
        mut routes in prop::collection::vec(words(), 1..12),
        requests in prop::collection::vec(request(), 40),
    ) {
        // Distinct priorities: then nothing is in conflict.
        for (number, words) in routes.iter_mut().enumerate() {
            words.priority = i32::try_from(number).expect("few");
        }
        let table = table(&document(&routes));
        for request in &requests {
            compare(&table, &routes, request)?;
        }
    }

    #[test]
    fn what_compile_accepts_is_always_decided(
        routes in prop::collection::vec(words(), 1..5),
        requests in prop::collection::vec(request(), 40),
    ) {
        if let (Some(table), _) = try_compile(&document(&routes)) {
            for request in &requests {
                compare(&table, &routes, request)?;
            }
        }
    }
}
