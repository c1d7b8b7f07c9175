//! `tollgate dev`: the gateway on loopback in front of a small built-in server, nothing else needed.
//!
//! Everything it writes is in one directory: settings and routes (written anew at every start, the routes before kept
//! beside them), and the local CA, which stays so that trust in it survives.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZero;
use std::path::{Path, PathBuf};

use super::example::Example;
use super::regions::Regions;
use super::system::{Buses, Parts, System};
use super::{Exit, demo, print, run};
use crate::settings;
use crate::tasks::Tasks;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Port for cleartext HTTP.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    http: u16,
    /// Port for HTTPS.
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    https: u16,
    /// Port of the admin listener.
    #[arg(long, value_name = "PORT", default_value_t = 9090)]
    admin: u16,
    /// Port of the health listener.
    #[arg(long, value_name = "PORT", default_value_t = 9100)]
    health: u16,
    /// Port of the dashboard.
    #[arg(long, value_name = "PORT", default_value_t = 9080)]
    dashboard: u16,
    /// Run a system of `examples/` instead: its services and its routes.
    #[arg(long, value_name = "NAME", value_enum)]
    example: Option<Example>,
    /// Directory for routes, certificates and logs. Default: `tollgate/dev` in the user's state directory.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Exit {
    if let Err(message) = check_ports(args) {
        return run::failed(&message);
    }
    let name = args.example.map_or_else(|| "dev".to_owned(), |example| format!("dev-{}", example.name()));
    let place = match Place::open(args.dir.clone().unwrap_or_else(|| default_dir(&name))) {
        Ok(place) => place,
        Err(error) => return run::failed(&error),
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
    run::on_threads(threads, async { start(args, &place).await.unwrap_or_else(|exit| exit) })
}

async fn start(args: &Args, place: &Place) -> Result<Exit, Exit> {
    let tasks = Tasks::default();
    let failed = |error: io::Error| run::failed(&error);
    let told = |message: String| run::failed(&message);
    let regions = match args.example {
        Some(Example::CoreHa) => Some(Regions::start(&place.dir, &tasks).await.map_err(told)?),
        _ => None,
    };
    let buses = match &regions {
        Some(regions) => regions.buses().await.map_err(told)?,
        None => Buses::local(),
    };
    let parts = args.example.map_or(Parts::Controller, Example::parts);
    let system = System::start(&place.dir, args.dashboard, parts, buses).await.map_err(told)?;
    let routes = match args.example {
        Some(example) => {
            let routes = example.start(&tasks, system.backend()).await.map_err(failed)?;
            match &regions {
                Some(regions) => regions.place(&routes),
                None => routes,
            }
        }
        None => {
            let blue = demo::start("blue", &tasks).await.map_err(failed)?;
            routes_text(blue, demo::start("green", &tasks).await.map_err(failed)?)
        }
    };
    place.write(args, &routes, &place.alone()).map_err(failed)?;
    let mut settings = run::settings(&place.settings())?;
    if args.example.is_some_and(Example::is_on_bus) {
        // The document is on the bus, as in a fleet: the dashboard pushes it.
        system.push(routes.clone(), "dev began").await.map_err(told)?;
        settings.routes = settings::Routes::on_bus(place.routes());
    }
    // To standard output: the log goes the other way.
    let exit = match regions {
        None => {
            let up = || _ = print(&place.invitation(args, &system, ""));
            run::serve(settings, None, Some(system.bus.clone()), up).await
        }
        Some(regions) => {
            let there = Place::open(place.dir.join("us")).map_err(failed)?;
            let any = Args { http: 0, https: 0, admin: 0, health: 0, ..args.clone() };
            there.write(&any, &routes, &regions.second(&there.routes())).map_err(failed)?;
            let up = |shown: &str| _ = print(&place.invitation(args, &system, shown));
            regions.serve(settings, &there.settings(), (args.http, &place.dir), up).await.map_err(told)?
        }
    };
    system.stop().await;
    tasks.stop().await;
    Ok(exit)
}

/// What `dev` writes, and where.
struct Place {
    dir: PathBuf,
}

impl Place {
    fn open(dir: PathBuf) -> io::Result<Place> {
        std::fs::create_dir_all(&dir)?;
        Ok(Place { dir: dir.canonicalize()? })
    }

    fn settings(&self) -> PathBuf {
        self.dir.join("edge.toml")
    }

    fn routes(&self) -> PathBuf {
        self.dir.join("routes.toml")
    }

    fn access_log(&self) -> PathBuf {
        self.dir.join("access.log")
    }

    fn ca(&self) -> PathBuf {
        self.dir.join("state").join("local-ca.pem")
    }

    /// Who a gateway is that has its routes from here and is alone.
    fn alone(&self) -> String {
        format!(
            "node = {{ name = \"tollgate-dev\", id = \"dev\" }}\nroutes = {{ file = {} }}\n",
            quoted(&self.routes())
        )
    }

    /// `who` are the settings that say who the gateway is and where its document comes from.
    fn write(&self, args: &Args, routes: &str, who: &str) -> io::Result<()> {
        // Routes name the ports of this run's services, so they are new; what was edited is not lost.
        match std::fs::rename(self.routes(), self.dir.join("routes.before.toml")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::fs::write(self.routes(), routes)?;
        std::fs::write(self.settings(), self.settings_text(args, who))
    }

    fn settings_text(&self, args: &Args, who: &str) -> String {
        let Args { http, https, admin, health, dashboard: _, example: _, dir: _ } = args;
        format!(
            "# Written by `tollgate dev` at every start.\n\
             format = 1\n\
             {who}\
             state = {{ dir = {state} }}\n\
             health = {{ address = \"127.0.0.1:{health}\" }}\n\
             admin = {{ address = \"127.0.0.1:{admin}\" }}\n\
             log = {{ access = {access}, format = \"text\" }}\n\
             drain = {{ grace = \"5s\" }}\n\
             overload = {{ lag = \"0s\" }} # a laptop that compiles is late for other reasons\n\
             \n\
             [[listen]]\n\
             name = \"http\"\n\
             address = \"127.0.0.1:{http}\"\n\
             protocol = \"http\"\n\
             versions = [\"h1\", \"h2\"]\n\
             \n\
             [[listen]]\n\
             name = \"https\"\n\
             address = \"127.0.0.1:{https}\"\n\
             protocol = \"https\"\n\
             certificate = \"internal\"\n",
            state = quoted(&self.dir.join("state")),
            access = quoted(&self.access_log()),
        )
    }

    /// `shown` is what is to be said of the example before anything else.
    fn invitation(&self, args: &Args, system: &System, shown: &str) -> String {
        let Args { http, https, admin, health, dashboard: _, example, dir: _ } = args;
        let (dashboard, token) = (system.dashboard(), &system.token);
        let change = match example {
            Some(example) if example.is_on_bus() => format!("on the dashboard, under Documents: http://{dashboard}/"),
            _ => self.routes().display().to_string(),
        };
        let (ca, access) = (self.ca(), self.access_log());
        let (ca, access) = (ca.display(), access.display());
        let attempts = match example {
            Some(example) => example.try_this(*http),
            None => format!(
                "  curl --cacert {ca} https://localhost:{https}/hello/you\n  \
                 curl http://localhost:{http}/headers                 what the server behind the gateway sees\n  \
                 curl http://localhost:{http}/users/7                 a rewritten path\n  \
                 curl -N http://localhost:{http}/stream               server-sent events\n  \
                 curl -i http://localhost:{http}/teapot               an answer of the gateway itself\n  \
                 curl -X POST --data-binary @FILE http://localhost:{http}/echo\n"
            ),
        };
        format!(
            "\n\
             Tollgate is up: https://localhost:{https} and http://localhost:{http}\n\
             {shown}\
             \n\
             Try\n\
             {attempts}\
             \n\
             Change the routes while it runs\n  \
               {change}\n\
             \n\
             Look inside\n  \
               http://{dashboard}/                                  the dashboard; its token is {token}\n  \
               curl http://127.0.0.1:{admin}/config                 what is in force, and what is wrong with the newest edit\n  \
               curl http://127.0.0.1:{admin}/upstreams              endpoints and their health\n  \
               curl http://127.0.0.1:{health}/metrics\n  \
               tail -f {access}\n\
             \n\
             Ctrl-C leaves, twice at once.\n"
        )
    }
}

fn quoted(path: &Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}

fn routes_text(blue: SocketAddr, green: SocketAddr) -> String {
    include_str!("dev_routes.toml").replace("@BLUE@", &blue.to_string()).replace("@GREEN@", &green.to_string())
}

/// XDG's place for state that should survive, else the system's place for what need not.
fn default_dir(name: &str) -> PathBuf {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(std::env::temp_dir)
        .join("tollgate")
        .join(name)
}

/// A message that names the port and the flag, before anything is started.
fn check_ports(args: &Args) -> Result<(), String> {
    let Args { http, https, admin, health, dashboard, example: _, dir: _ } = *args;
    for (flag, port) in
        [("--http", http), ("--https", https), ("--admin", admin), ("--health", health), ("--dashboard", dashboard)]
    {
        if let Err(error) = TcpListener::bind(("127.0.0.1", port)) {
            return Err(match error.kind() {
                io::ErrorKind::AddrInUse => {
                    format!("port {port} is busy: another program listens there. Take another one with `{flag} PORT`")
                }
                _ => format!("cannot listen on port {port}: {error}. Take another one with `{flag} PORT`"),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, References};
    use crate::control::{Text, compile};
    use crate::routes::Env;
    use crate::upstream::Pools;

    fn args() -> Args {
        Args { http: 0, https: 0, admin: 0, health: 0, dashboard: 0, example: None, dir: None }
    }

    #[test]
    fn names_the_busy_port_and_its_flag() {
        assert_eq!(check_ports(&args()), Ok(()));
        let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let message = check_ports(&Args { https: port, ..args() }).unwrap_err();
        assert!(message.contains(&port.to_string()) && message.contains("--https PORT"), "{message}");
    }

    #[test]
    fn keeps_edited_routes_beside_the_new_ones() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::open(dir.path().join("new")).unwrap();
        let address: SocketAddr = "127.0.0.1:1".parse().unwrap();
        place.write(&args(), &routes_text(address, address), &place.alone()).unwrap();
        std::fs::write(place.routes(), "edited").unwrap();
        place.write(&args(), &routes_text(address, address), &place.alone()).unwrap();
        assert_eq!(std::fs::read_to_string(place.dir.join("routes.before.toml")).unwrap(), "edited");
        assert!(std::fs::read_to_string(place.routes()).unwrap().contains("\"127.0.0.1:1\""));
    }

    #[tokio::test]
    async fn writes_settings_and_routes_that_are_right() {
        let dir = tempfile::tempdir().unwrap();
        // A path that needs quoting.
        let place = Place::open(dir.path().join("it's \"new\"")).unwrap();
        let routes = routes_text("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        place.write(&args(), &routes, &place.alone()).unwrap();
        let text = std::fs::read_to_string(place.settings()).unwrap();
        let (settings, problems) = config::read::settings(&text, &References::symbolic(), &[]);
        assert_eq!(problems, []);
        let settings = settings.unwrap();
        let pools = Pools::new(&settings.dns, Tasks::default()).unwrap();
        let text =
            Text { text: std::fs::read_to_string(place.routes()).unwrap().into(), name: "routes.toml".to_owned() };
        let compiled = compile(text, References::symbolic(), &Env::of(&settings), &pools)
            .unwrap_or_else(|refused| panic!("{}", refused.report()));
        assert_eq!(compiled.warnings, []);
    }
}
