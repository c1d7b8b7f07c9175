//! The hosts file, read again when it changed.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// A hosts file (hosts(5)).
#[derive(Debug)]
pub(crate) struct HostsFile {
    path: PathBuf,
    read: Mutex<Option<(SystemTime, Arc<str>)>>,
}

/// A larger file is not read: it is a block list, not a list of hosts.
const FILE_MAX: u64 = 1 << 20;

impl HostsFile {
    pub(crate) fn system() -> HostsFile {
        HostsFile::at("/etc/hosts".into())
    }

    pub(crate) fn at(path: PathBuf) -> HostsFile {
        HostsFile { path, read: Mutex::default() }
    }

    /// The addresses of a name, if the file has any.
    pub(crate) async fn lookup(&self, host: &str) -> Option<Vec<IpAddr>> {
        let text = self.text().await?;
        let mut found: Vec<IpAddr> = text
            .lines()
            .filter_map(|line| {
                let line = line.split('#').next()?;
                let mut words = line.split_ascii_whitespace();
                let address: IpAddr = words.next()?.parse().ok()?;
                words.any(|name| name.eq_ignore_ascii_case(host)).then_some(address)
            })
            .collect();
        found.sort_unstable();
        found.dedup();
        (!found.is_empty()).then_some(found)
    }

    async fn text(&self) -> Option<Arc<str>> {
        let about = tokio::fs::metadata(&self.path).await.ok()?;
        if about.len() > FILE_MAX {
            return None;
        }
        let changed = about.modified().ok()?;
        if let Some((read, text)) = &*self.read.lock().unwrap_or_else(PoisonError::into_inner)
            && *read == changed
        {
            return Some(text.clone());
        }
        let text: Arc<str> = tokio::fs::read_to_string(&self.path).await.ok()?.into();
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some((changed, text.clone()));
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn finds_every_address_of_a_name_and_follows_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hosts");
        std::fs::write(&path, "10.0.0.1 db db.lan # not spare\nfd00::1\tDB\n# 10.0.0.3 db\nnonsense db\n").unwrap();
        let hosts = HostsFile::at(path.clone());
        let ips = |texts: &[&str]| Some(texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>());
        assert_eq!(hosts.lookup("db").await, ips(&["10.0.0.1", "fd00::1"]));
        assert_eq!(hosts.lookup("spare").await, None);
        std::fs::write(&path, "10.0.0.9 db\n").unwrap();
        let later = SystemTime::now() + std::time::Duration::from_secs(5);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
        assert_eq!(hosts.lookup("db").await, ips(&["10.0.0.9"]));
        assert_eq!(HostsFile::at(dir.path().join("none")).lookup("db").await, None);
    }
}
