//! The guard against its corpus, against pieces of every size, and against a naive parser.

use proptest::prelude::*;

use super::h1::{Guard, Verdict};
use super::*;

#[path = "../../../tests/it/corpus.rs"]
mod corpus;
mod reference;

/// What came of some bytes: where each whole request ended, how many bytes passed, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outcome {
    ends: Vec<usize>,
    passed: usize,
    end: Verdict,
}

fn limits() -> HeadLimits {
    HeadLimits::from(&crate::settings::Limits::default())
}

/// Runs a guard over bytes that arrive up to each of `arrivals`, and then whole.
fn run(bytes: &[u8], arrivals: &[usize], limits: HeadLimits) -> Outcome {
    let mut guard = Guard::new(limits);
    let mut arrivals = arrivals.iter().copied().chain([bytes.len()]);
    let (mut ends, mut passed, mut seen) = (Vec::new(), 0, 0);
    loop {
        match guard.inspect(&bytes[passed..seen]) {
            Verdict::Release(n) => {
                assert!(n >= 1 && passed + n <= seen, "released what it had not seen");
                passed += n;
            }
            Verdict::RequestEnd => {
                assert!(!guard.in_head());
                ends.push(passed);
                guard.next_request();
                assert!(guard.in_head());
            }
            end => match arrivals.next() {
                Some(arrival) if end == Verdict::Incomplete => seen = arrival.max(seen),
                _ => return Outcome { ends, passed, end },
            },
        }
    }
}

fn run_whole(bytes: &[u8]) -> Outcome {
    run(bytes, &[], limits())
}

#[test]
fn the_corpus_gets_its_answers() {
    let cases = corpus::cases();
    assert!(cases.len() >= 220, "{}", cases.len());
    for case in cases {
        let name = &case.name;
        let outcome = run_whole(&case.request);
        let bytewise: Vec<_> = (0..case.request.len()).collect();
        assert_eq!(run(&case.request, &bytewise, limits()), outcome, "{name}: in single bytes");
        let refused = match outcome.end {
            Verdict::Refuse(refusal) => Some(refusal.code.status().as_u16()),
            _ => None,
        };
        let last = case.expect.last().copied().expect(name);
        if case.by_gateway || (refused.is_none() && !case.seen.broken) {
            assert_eq!((refused, outcome.passed), (None, case.request.len()), "{name}: {outcome:?}");
            let answers = case.expect.iter().filter(|&&answer| answer != corpus::Answer::Close).count();
            assert!(outcome.ends.len() >= answers, "{name}: {outcome:?}");
            assert!(case.by_gateway || case.seen.whole == answers, "{name}: {outcome:?}");
            continue;
        }
        let expect = match last {
            corpus::Answer::Status(status) | corpus::Answer::StatusOrClose(status) => Some(status),
            corpus::Answer::Close => None,
        };
        assert_eq!(refused, expect, "{name}: {outcome:?}");
        assert_eq!(outcome.ends.len(), case.seen.whole, "{name}: {outcome:?}");
        let whole = outcome.ends.last().copied().unwrap_or_default();
        assert_eq!(outcome.passed > whole, case.seen.broken, "{name}: {outcome:?}");
    }
}

#[test]
fn gives_the_origin_form_behind_an_empty_line() {
    let mut bytes = b"\r\nGET http://a.test:80?x HTTP/1.1\r\nHost: a.test\r\n\r\nbody".to_vec();
    let mut guard = Guard::new(limits());
    let Verdict::Release(len) = guard.inspect(&bytes) else { panic!() };
    let skip = guard.to_origin_form(&mut bytes[..len]);
    assert_eq!(bytes[skip..], *b"\r\nGET /?x HTTP/1.1\r\nHost: a.test\r\n\r\nbody");
}

#[test]
fn releases_a_body_as_it_comes() {
    let mut guard = Guard::new(limits());
    let head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(guard.inspect(&head[..20]), Verdict::Incomplete);
    assert!(guard.in_head());
    assert_eq!(guard.inspect(head), Verdict::Release(head.len()));
    assert!(!guard.in_head());
    assert_eq!(guard.inspect(b""), Verdict::Incomplete);
    assert_eq!(guard.inspect(b"ab"), Verdict::Release(2));
    guard.next_request();
    assert_eq!(guard.inspect(b"cdeGET"), Verdict::Release(3));
    assert_eq!(guard.inspect(b"GET"), Verdict::RequestEnd);
    assert_eq!(guard.inspect(b"GET"), Verdict::RequestEnd);
    guard.next_request();
    assert_eq!(guard.inspect(b"GET"), Verdict::Incomplete);
}

#[test]
fn a_tunnel_passes_everything() {
    let mut guard = Guard::new(limits());
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(guard.inspect(head), Verdict::Release(head.len()));
    assert_eq!(guard.inspect(b"\x81\0"), Verdict::RequestEnd);
    guard.tunnel();
    assert_eq!(guard.inspect(b"\x81\0"), Verdict::Release(2));
    assert_eq!(guard.inspect(b""), Verdict::Incomplete);
}

#[test]
fn stays_refused() {
    let mut guard = Guard::new(limits());
    let Verdict::Refuse(first) = guard.inspect(b"GET / HTTP/1.1\r\nHost : a\r\n") else { panic!() };
    assert!(guard.in_head());
    guard.next_request();
    assert_eq!(guard.inspect(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), Verdict::Refuse(first));
}

#[test]
fn bounds_are_exact() {
    let code = |text: &str, limits| match run(text.as_bytes(), &[], limits).end {
        Verdict::Refuse(refusal) => Some(refusal.code),
        _ => None,
    };
    let text = "GET /abc HTTP/1.1\r\nHost: a\r\nX: 1\r\n\r\n";
    let line = text.find("\r\n").unwrap();
    for lead in ["", "\r\n"] {
        let text = format!("{lead}{text}");
        let head = text.len() - lead.len();
        assert_eq!(code(&text, HeadLimits::new(line, head, 2)), None);
        assert_eq!(code(&text, HeadLimits::new(line - 1, head, 2)), Some(Code::UriTooLong));
        assert_eq!(code(&text, HeadLimits::new(line, head - 1, 2)), Some(Code::HeadTooLarge));
        assert_eq!(code(&text, HeadLimits::new(line, head - 2, 2)), Some(Code::HeadTooLarge));
        assert_eq!(code(&text, HeadLimits::new(line, line + 3, 2)), Some(Code::HeadTooLarge));
        assert_eq!(code(&text, HeadLimits::new(line, head, 1)), Some(Code::HeadTooLarge));
    }
}

#[test]
fn tells_protocols_apart_by_the_first_byte_that_differs() {
    for n in 0..H2_PREFACE.len() {
        assert_eq!(sniff(&H2_PREFACE[..n]), Sniff::NeedMore);
        let mut other = H2_PREFACE[..=n].to_vec();
        other[n] ^= 0x20;
        assert_eq!(sniff(&other), Sniff::H1);
    }
    assert_eq!(sniff(H2_PREFACE), Sniff::H2Preface);
    assert_eq!(sniff(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04"), Sniff::H2Preface);
    assert_eq!(sniff(b"POST"), Sniff::H1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn pieces_make_no_difference(
        bytes in reference::requests(),
        mut arrivals in proptest::collection::vec(0..600usize, 0..8),
        request_line in 0..60usize, head in 0..200usize, headers in 0..8usize, tight: bool,
    ) {
        let limits = if tight { HeadLimits::new(request_line, head, headers) } else { limits() };
        arrivals.iter_mut().for_each(|arrival| *arrival %= bytes.len() + 1);
        let whole = run(&bytes, &[], limits);
        prop_assert_eq!(run(&bytes, &arrivals, limits), whole.clone());
        let bytewise: Vec<_> = (0..bytes.len()).collect();
        prop_assert_eq!(run(&bytes, &bytewise, limits), whole);
    }

    #[test]
    fn agrees_with_a_naive_parser(bytes in reference::requests()) {
        let outcome = run_whole(&bytes);
        let naive = reference::parse(&bytes);
        match naive.end {
            reference::End::Refused => {
                prop_assert!(matches!(outcome.end, Verdict::Refuse(_)), "{outcome:?} {naive:?} {}", bytes.escape_ascii());
                prop_assert_eq!(outcome.ends, naive.ends);
            }
            // The guard may see earlier that nothing good can come of it.
            reference::End::Open => prop_assert_eq!(outcome.ends, naive.ends, "{}", bytes.escape_ascii()),
            reference::End::Clean => {
                prop_assert_eq!(outcome.end, Verdict::Incomplete);
                prop_assert_eq!(outcome.passed, bytes.len());
                prop_assert_eq!(outcome.ends, naive.ends);
            }
        }
    }
}
