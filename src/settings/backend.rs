//! Words of `backend.toml`: the minimal backend service. A change needs a restart.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::is_level;
use super::{Bus, LogFormat};
use crate::problem::{Path, Problem};
use crate::scalar::{OneOrMany, Secret, Size, Span, without_references};

/// The shortest password that is taken.
pub const PASSWORD_MIN: usize = 8;
/// Sessions that one account has at once; beyond it the oldest ends. Each has one refresh token that is good.
pub const SESSIONS_MAX: u64 = 50;
/// What a file counts for `uploads.total` though it is smaller.
const FILE_MIN: Size = Size(4 << 10);

/// The minimal backend: accounts, records and files over HTTP, kept in SQLite.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Backend {
    /// Version of the format. Must be 1.
    #[schemars(extend("const" = 1))]
    pub format: u32,
    /// `address:port` to listen on, cleartext HTTP/1.1: a gateway stands in front. Default `127.0.0.1:8090`.
    #[serde(default = "listen")]
    pub listen: String,
    /// Directory of the database and of uploads, made if there is none. One process at a time.
    pub data: PathBuf,
    /// Where events are told. Without it the newest `bus.buffer` of them are kept in the database.
    #[serde(default)]
    pub bus: Bus,
    /// Tokens that are given at login.
    #[serde(default)]
    pub token: Token,
    /// Who may have an account.
    #[serde(default)]
    pub accounts: Accounts,
    /// Files that are uploaded.
    #[serde(default)]
    pub uploads: Uploads,
    /// The first administrator, made at a start without any. `TOLLGATE_ADMIN_EMAIL` and `TOLLGATE_ADMIN_PASSWORD` stand in for what is empty. Default: none is made.
    #[serde(default)]
    pub admin: FirstAdmin,
    /// Bounds on what clients may do.
    #[serde(default)]
    pub limits: BackendLimits,
    /// The service's own log, on stderr.
    #[serde(default)]
    pub log: BackendLog,
    /// Leaving.
    #[serde(default)]
    pub drain: BackendDrain,
}

/// Tokens: ES256, verified by the keys at `/.well-known/jwks.json`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Token {
    /// `iss`. Default `tollgate-backend`.
    pub issuer: String,
    /// `aud`. Default `["api"]`.
    pub audience: OneOrMany<String>,
    /// Life of an access token. Default 15m.
    pub access: Span,
    /// Life of a refresh token. Each is good once and gives the next. Default 30d.
    pub refresh: Span,
    /// A key signs for this long. The next one is published a tenth of it (10m at most) before it signs, an old one until
    /// its last token has ended. Default 30d.
    pub rotate: Span,
}

/// Accounts.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Accounts {
    /// Anyone may sign up. Default true.
    pub signup: bool,
}

/// Files.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Uploads {
    /// Largest file. Beyond it 413 `too_large`. Default 10MiB.
    pub size: Size,
    /// All files together, and those removed within the last ten minutes, whose bytes are kept for a backup under way. A file
    /// counts 4 KiB at least, a block of the disk: this bounds their number, too. Beyond it 507 `storage_full`. Default 1GiB.
    pub total: Size,
    /// Time for an upload to arrive. Then 408 `timeout`. Default 5m.
    pub time: Span,
}

/// The first administrator.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FirstAdmin {
    /// Address to log in with. Default: none.
    pub email: Option<String>,
    /// Password, 8 characters or more. Usually `"${file:/run/secrets/admin}"`. Default: none.
    pub password: Option<Secret>,
}

/// Bounds.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BackendLimits {
    /// Longest body that is no file. Beyond it 413 `too_large`. Default 128KiB.
    pub body: Size,
    /// Longest record, as JSON. Beyond it 413 `too_large`. Default 64KiB.
    pub record: Size,
    /// Most connections open at once; further ones wait to be accepted. Default 1024.
    pub connections: usize,
    /// Time for a request that is no upload. Then 408 `timeout`. Default 15s.
    pub time: Span,
    /// Passwords that are hashed at once, each a core and 19 MiB; others wait, and are told 503 `busy` after two seconds. Default 2.
    pub passwords: usize,
    /// A client must take some of its answer within this, or its connection is closed. Default 30s.
    pub write_idle: Span,
    /// Most accounts. Beyond it nobody can sign up: 507 `storage_full`. Default 100000.
    pub accounts: u64,
    /// Most records of a collection. Beyond it 507 `storage_full`. Default 100000.
    pub records: u64,
    /// Largest database, by what is in use. Beyond it nothing is added to it: 507 `storage_full` for new accounts, new
    /// records, records that grow and new files. Logins and removals go on. Default 1GiB.
    pub database: Size,
    /// Most refresh tokens of an account, used ones included, which are kept to notice that one comes twice. Beyond it the
    /// oldest used ones are forgotten first. 50 at least: as many sessions an account may have. Default 1000.
    pub refresh_tokens: u64,
    /// Failed logins to one account in a row, before the next has to wait: a second, then twice as long each time, a minute at most (429 `too_many_failures`). Default 5.
    pub failures: u32,
}

/// The service's own log.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BackendLog {
    /// `error`, `warn`, `info` (one line per request), `debug`, or a filter such as `warn,tollgate::backend=debug`. Default `info`.
    pub level: String,
    /// `json` or `text`. Default `json`.
    pub format: LogFormat,
}

/// Leaving: TERM and INT.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct BackendDrain {
    /// Requests in flight may take this long to finish. Default 10s.
    pub grace: Span,
    /// `/ready` says 503 this long before the listener stops, so that whoever balances notices. Default 0s.
    pub delay: Span,
}

fn listen() -> String {
    "127.0.0.1:8090".to_owned()
}

impl Default for Token {
    fn default() -> Token {
        let day = 24 * 3600;
        Token {
            issuer: "tollgate-backend".to_owned(),
            audience: OneOrMany(vec!["api".to_owned()]),
            access: Span::from_secs(15 * 60),
            refresh: Span::from_secs(30 * day),
            rotate: Span::from_secs(30 * day),
        }
    }
}

impl Default for Accounts {
    fn default() -> Accounts {
        Accounts { signup: true }
    }
}

impl Default for Uploads {
    fn default() -> Uploads {
        Uploads { size: Size(10 << 20), total: Size(1 << 30), time: Span::from_secs(300) }
    }
}

impl Default for BackendLimits {
    fn default() -> BackendLimits {
        BackendLimits {
            body: Size(128 << 10),
            record: Size(64 << 10),
            connections: 1024,
            time: Span::from_secs(15),
            passwords: 2,
            write_idle: Span::from_secs(30),
            accounts: 100_000,
            records: 100_000,
            database: Size(1 << 30),
            refresh_tokens: 1000,
            failures: 5,
        }
    }
}

impl Default for BackendLog {
    fn default() -> BackendLog {
        BackendLog { level: "info".to_owned(), format: LogFormat::default() }
    }
}

impl Default for BackendDrain {
    fn default() -> BackendDrain {
        BackendDrain { grace: Span::from_secs(10), delay: Span::from_secs(0) }
    }
}

impl Backend {
    /// The words for this directory, everything else as it comes.
    pub fn new(data: PathBuf) -> Backend {
        Backend {
            format: 1,
            listen: listen(),
            data,
            bus: Bus::default(),
            token: Token::default(),
            accounts: Accounts::default(),
            uploads: Uploads::default(),
            admin: FirstAdmin::default(),
            limits: BackendLimits::default(),
            log: BackendLog::default(),
            drain: BackendDrain::default(),
        }
    }

    /// Adds every mistake of meaning.
    pub fn check(&self, problems: &mut Vec<Problem>) {
        let top = Path::default();
        let mut error =
            |path: Path, message: String, help: &str| problems.push(Problem::error(path, message).help(help));
        if without_references(&self.listen).parse::<SocketAddr>().is_err() && !self.listen.contains("${") {
            let help = "write `address:port` with an IP address: \"127.0.0.1:8090\", \"[::]:8090\"";
            error(top.at("listen"), format!("`{}` is not an address", self.listen), help);
        }
        if self.data.as_os_str().is_empty() {
            error(top.at("data"), "the path is empty".to_owned(), "write the path of a directory");
        }
        self.bus.check(&top.at("bus"), &mut error);
        if !is_level(&self.log.level) {
            let help = "write error, warn, info, debug or trace, or filters such as \"warn,tollgate::backend=debug\"";
            error(top.at("log").at("level"), format!("`{}` is not a level", self.log.level), help);
        }
        self.check_bounds(&mut error);
        self.check_admin(&mut error);
    }

    fn check_bounds(&self, error: &mut dyn FnMut(Path, String, &str)) {
        let (token, limits, uploads) = (Path::of(["token"]), Path::of(["limits"]), Path::of(["uploads"]));
        if self.token.issuer.is_empty() {
            error(token.at("issuer"), "the issuer is empty".to_owned(), "write a name or a URL");
        }
        if self.token.audience.is_empty() {
            error(token.at("audience"), "nobody is meant".to_owned(), "name whoever takes the tokens: [\"api\"]");
        }
        for (word, span) in
            [("access", self.token.access), ("refresh", self.token.refresh), ("rotate", self.token.rotate)]
        {
            if span.0 < Duration::from_secs(1) || span.0 > Duration::from_secs(10 * 366 * 86_400) {
                error(token.at(word), format!("{span} is out of bounds"), "write 1s at least and ten years at most");
            }
        }
        if self.token.refresh <= self.token.access {
            let help = "an access token is to end long before the one that renews it";
            error(token.at("refresh"), "this is no longer than `token.access`".to_owned(), help);
        }
        for (at, number) in [
            (limits.at("body"), self.limits.body.0),
            (limits.at("record"), self.limits.record.0),
            (limits.at("connections"), self.limits.connections as u64),
            (limits.at("passwords"), self.limits.passwords as u64),
            (limits.at("failures"), u64::from(self.limits.failures)),
            (limits.at("write_idle"), self.limits.write_idle.0.as_millis() as u64),
            (limits.at("accounts"), self.limits.accounts),
            (limits.at("records"), self.limits.records),
            (limits.at("database"), self.limits.database.0),
            (limits.at("time"), self.limits.time.0.as_millis() as u64),
            (uploads.at("size"), self.uploads.size.0),
            (uploads.at("time"), self.uploads.time.0.as_millis() as u64),
        ] {
            if number == 0 {
                error(at, "this would let nothing through".to_owned(), "write more than zero");
            }
        }
        if self.limits.refresh_tokens < SESSIONS_MAX {
            let help = format!(
                "write {SESSIONS_MAX} at least: so many sessions an account has, each with a token that is good"
            );
            error(limits.at("refresh_tokens"), "this would log out who is logged in".to_owned(), &help);
        }
        if self.limits.record > self.limits.body {
            let help = "a record comes in a body: raise `limits.body`, too";
            error(limits.at("record"), "this is more than `limits.body`".to_owned(), help);
        }
        if self.limits.record > Size(1 << 20) {
            error(limits.at("record"), "this is too much".to_owned(), "write 1MiB at most: larger ones are files");
        }
        if self.uploads.total < self.uploads.size {
            let help = "all files together take more room than one: raise `uploads.total`";
            error(uploads.at("total"), "this is less than `uploads.size`".to_owned(), help);
        } else if self.uploads.total < FILE_MIN {
            let help = "write 4KiB at least: so much every file counts";
            error(uploads.at("total"), "there would be room for no file".to_owned(), help);
        }
    }

    fn check_admin(&self, error: &mut dyn FnMut(Path, String, &str)) {
        let at = Path::of(["admin"]);
        if let Some(email) = self.admin.email.as_deref().filter(|email| !email.is_empty())
            && !email.contains('@')
            && !email.contains("${")
        {
            error(at.at("email"), "this is no address".to_owned(), "write one such as \"admin@example.com\"");
        }
        if let Some(password) = self.admin.password.as_ref().map(Secret::expose)
            && !password.is_empty()
            && !password.contains("${")
            && password.chars().count() < PASSWORD_MIN
        {
            error(at.at("password"), "the password is too short".to_owned(), "write 8 characters or more");
        }
    }
}
