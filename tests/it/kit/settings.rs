//! Boot settings of a test: sensible ones, changed by dotted path.

use std::path::Path;

use toml::{Table, Value};

/// `edge.toml` as it will be written.
pub(crate) struct Settings {
    table: Table,
    /// What `${NAME}` in the document stands for.
    pub(crate) environment: Vec<(String, String)>,
}

impl Settings {
    /// Listeners `http` (HTTP/1), `h2c` (both, prior knowledge) and `https` (both), health, admin, an access log to read.
    pub(crate) fn new(directory: &Path) -> Settings {
        let at = |name: &str| directory.join(name).display().to_string();
        let text = format!(
            r#"
            format = 1
            node = {{ name = "tollgate-test", threads = 2 }}
            state = {{ dir = {state:?} }}
            health = {{ address = "127.0.0.1:0" }}
            admin = {{ address = "127.0.0.1:0" }}
            routes = {{ file = {routes:?} }}
            log = {{ access = {access:?}, level = "info" }}
            drain = {{ grace = "10s" }}
            # Many programs run beside it: that it comes late says nothing.
            overload = {{ lag = "0s" }}
            [[listen]]
            name = "http"
            address = "127.0.0.1:0"
            protocol = "http"
            [[listen]]
            name = "h2c"
            address = "127.0.0.1:0"
            protocol = "http"
            versions = ["h1", "h2"]
            [[listen]]
            name = "https"
            address = "127.0.0.1:0"
            protocol = "https"
            certificate = {{ chain = {chain:?}, key = {key:?} }}
            "#,
            state = at("state"),
            routes = at("routes.toml"),
            access = at("access.log"),
            chain = at("chain.pem"),
            key = at("key.pem"),
        );
        Settings { table: text.parse().unwrap(), environment: Vec::new() }
    }

    /// `settings.set("limits.head_timeout", "300ms")`.
    pub(crate) fn set(&mut self, path: &str, value: impl Into<Value>) -> &mut Settings {
        let (tables, last) = path.rsplit_once('.').unwrap_or(("", path));
        let mut table = &mut self.table;
        for name in tables.split('.').filter(|name| !name.is_empty()) {
            table = table.entry(name).or_insert_with(|| Table::new().into()).as_table_mut().unwrap();
        }
        table.insert(last.to_owned(), value.into());
        self
    }

    /// A key of one entry of a list, by its name: `at("listen", "https", "public", false)`.
    pub(crate) fn at(&mut self, list: &str, name: &str, key: &str, value: impl Into<Value>) -> &mut Settings {
        let entries = self.table[list].as_array_mut().unwrap();
        let entry = entries.iter_mut().find(|entry| entry["name"].as_str() == Some(name)).unwrap();
        entry.as_table_mut().unwrap().insert(key.to_owned(), value.into());
        self
    }

    pub(crate) fn remove(&mut self, key: &str) -> &mut Settings {
        self.table.remove(key);
        self
    }

    pub(crate) fn environment(&mut self, name: &str, value: impl ToString) -> &mut Settings {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// One more listener: TOML of one `[[listen]]`, its address is added.
    pub(crate) fn listen(&mut self, toml: &str) -> &mut Settings {
        let mut listener: Table = toml.parse().unwrap();
        listener.entry("address").or_insert_with(|| "127.0.0.1:0".into());
        self.table["listen"].as_array_mut().unwrap().push(listener.into());
        self
    }

    pub(crate) fn text(&self) -> String {
        toml::to_string(&self.table).unwrap()
    }
}
