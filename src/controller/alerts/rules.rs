//! `alerts.toml`, read again when it changes. A file with a mistake changes nothing and is shown.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::config::print::{Entry, entries};
use crate::config::{References, read};
use crate::settings::Alerts;
use crate::source::file;

/// How often the file is looked at. A poll, since what is mounted into containers tells no changes.
const EVERY: Duration = Duration::from_secs(1);

/// The rules in force and what is wrong with the newest ones.
#[derive(Debug, Default)]
pub(in crate::controller) struct Rules {
    now: ArcSwap<Alerts>,
    /// A file has been taken up: before that nobody knows what is meant.
    known: std::sync::atomic::AtomicBool,
    problems: ArcSwap<Vec<Entry>>,
}

impl Rules {
    pub(in crate::controller) fn now(&self) -> Arc<Alerts> {
        self.now.load_full()
    }

    pub(in crate::controller) fn are_known(&self) -> bool {
        self.known.load(std::sync::atomic::Ordering::Acquire)
    }

    /// Why the newest file is not in force. Empty: it is.
    pub(in crate::controller) fn problems(&self) -> Arc<Vec<Entry>> {
        self.problems.load_full()
    }

    /// Takes a text up if nothing is wrong with it.
    fn take(&self, name: &str, text: &str) {
        let (rules, problems) = read::boot::<Alerts>(text, &References::resolve(), &[]);
        let told = entries(name, text, &problems);
        match rules {
            Some(rules) => {
                tracing::info!(file = name, rules = rules.alert.len(), "alert rules are in force");
                self.now.store(Arc::new(rules));
                self.known.store(true, std::sync::atomic::Ordering::Release);
            }
            None => tracing::error!(file = name, problems = ?told, "alert rules are not taken"),
        }
        self.problems.store(Arc::new(told));
    }

    fn unreadable(&self, name: &str, reason: String) {
        let entry = Entry {
            file: name.to_owned(),
            line: 1,
            column: 1,
            path: String::new(),
            severity: "error",
            message: reason,
            help: Some("name the file with `alerts` in controller.toml".to_owned()),
        };
        self.problems.store(Arc::new(vec![entry]));
    }
}

/// Follows the file, for as long as the process lives.
pub(in crate::controller) async fn follow(rules: Arc<Rules>, path: PathBuf) {
    let name = path.display().to_string();
    let mut seen: Option<Result<Arc<str>, String>> = None;
    loop {
        let now = text(&path).await;
        if seen.as_ref() != Some(&now) {
            match &now {
                Ok(text) => rules.take(&name, text),
                Err(reason) => rules.unreadable(&name, reason.clone()),
            }
            seen = Some(now);
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn text(path: &Path) -> Result<Arc<str>, String> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || file::read(&path).map_err(|error| error.to_string()));
    read.await.unwrap_or_else(|_| Err("the work was given up".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_changes_nothing_and_is_shown() {
        let rules = Rules::default();
        rules.take("alerts.toml", "format = 1\n[[alert]]\nname = 'a'\nwhen = { drift = {} }\n");
        assert_eq!((rules.now().alert.len(), rules.problems().len()), (1, 0));
        for (text, expect) in [
            ("format = 1\n[[alert]]\nname = 'a'\nwhen = {}\n", "nothing is looked at"),
            ("format = 1\n[[alert]]\nname = 'a'\nwhen = { drift = {}, silence = {} }\n", "drift and silence are given"),
            ("format = 1\n[[alert]]\nname = 'a'\nwhen = { drift = {} }\nnotify = 'ops'\n", "there is no [notify.ops]"),
            ("format = 1\n[[alert]]\nname = 'a'\nwhen = { drfit = {} }\n", "drfit"),
            ("format = 1\n[notify.ops]\nwebhook = 'ops'\n", "is no URL"),
            ("format = 1\n[[alert]]\nname = 'a'\nwhen = { rate = { of = '5xx', above = 101 } }\n", "no share"),
        ] {
            rules.take("alerts.toml", text);
            let problems = rules.problems();
            assert!(problems.iter().any(|problem| problem.message.contains(expect)), "{expect}: {problems:?}");
            assert_eq!(rules.now().alert.len(), 1, "the old ones stay");
        }
        rules.take("alerts.toml", "format = 1\n");
        assert_eq!((rules.now().alert.len(), rules.problems().len()), (0, 0));
    }
}
