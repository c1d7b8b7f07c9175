//! Everything a gateway can show as its own: certificate files, the local CA, and which name shows what.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::StartError;
use crate::config::{ClientCertificateMode, TlsVersion};
use crate::routes::host::HostPattern;
use crate::routes::{NameCertificate, NamePolicy, Table};
use crate::settings::{Certificate, HttpVersion, Listen, Settings};
use crate::tls::{
    Acme, AcmeCertificate, Authority, ByName, CertificateError, Certificates, Challenges, ClientAuthorities,
    ClientAuthority, ClientPolicy, Demand, FileCertificate, Held, Index, Look, Named, Policy, Shared, Shown, Stapled,
    Tls, Wish,
};

/// Opened once at start; files that are broken are told then.
pub(super) struct Identities {
    state: Option<std::path::PathBuf>,
    named: BTreeMap<String, Arc<FileCertificate>>,
    /// Those of listeners.
    own: Mutex<Vec<Arc<FileCertificate>>>,
    authority: OnceLock<Arc<Authority>>,
    acme: Option<Arc<Acme>>,
    /// The CA that gives every host of the routes a certificate, and whether it proves wildcards.
    automatic: Option<(Box<str>, bool)>,
    demand: Option<Arc<Demand>>,
    clients: Arc<ClientAuthorities>,
    by_name: Arc<ByName>,
}

impl Identities {
    /// `shared` is what the fleet keeps, if certificates are kept there.
    pub(super) fn open(settings: &Settings, shared: Option<&Shared>) -> Result<Identities, StartError> {
        let failed = |name: &str| {
            let name = name.to_owned();
            move |source| StartError::NamedCertificate { name, source }
        };
        let mut named = BTreeMap::new();
        for (name, files) in &settings.certificate {
            named.insert(name.clone(), Arc::new(FileCertificate::open(name, files).map_err(failed(name))?));
        }
        let mut clients = ClientAuthorities::new();
        for (name, files) in &settings.client_ca {
            clients.insert(name.clone(), Arc::new(ClientAuthority::open(name, files).map_err(failed(name))?));
        }
        let acme = match (shared, &settings.state.dir) {
            (Some(shared), _) if !settings.ca.is_empty() => Some(Arc::new(Acme::shared(shared, &settings.ca))),
            (None, Some(dir)) if !settings.ca.is_empty() => {
                let failed = |source| StartError::State { path: dir.clone(), source };
                Some(Arc::new(Acme::open(dir, &settings.ca).map_err(failed)?))
            }
            _ => None,
        };
        let demand = settings.on_demand.as_ref().and_then(|words| {
            let ca = words.ca.as_deref().or(settings.main_ca())?;
            Some(Arc::new(Demand::new(acme.clone()?, ca, words)))
        });
        let by_dns = |ca: &str| settings.ca.get(ca).is_some_and(|ca| ca.dns.is_some());
        Ok(Identities {
            acme,
            automatic: settings.automatic_ca().map(|ca| (ca.into(), by_dns(ca))),
            demand,
            clients: Arc::new(clients),
            state: settings.state.dir.clone(),
            named,
            own: Mutex::default(),
            authority: OnceLock::new(),
            by_name: Arc::default(),
        })
    }

    /// What a listener shows.
    pub(super) fn listener(&self, settings: &Settings, listen: &Listen) -> Result<Tls, CertificateError> {
        let certificate = settings.certificate(listen);
        let held = match &certificate {
            Certificate::Files(files) => {
                let certificate = Arc::new(FileCertificate::open(&listen.name, files)?);
                self.own.lock().unwrap_or_else(PoisonError::into_inner).push(certificate.clone());
                Held::Files(certificate)
            }
            Certificate::Internal(_) | Certificate::Acme(_) => Held::Internal(self.authority()?),
        };
        let automatic = matches!(certificate, Certificate::Acme(_));
        let by_name = self.by_name.clone();
        let certificates = Certificates::new(held, automatic, listen.unknown_names, by_name, self.demand.clone());
        Tls::new(listen, certificates, self.clients.clone(), self.challenges())
    }

    pub(super) fn acme(&self) -> Option<&Arc<Acme>> {
        self.acme.as_ref()
    }

    /// What CAs ask to see.
    pub(super) fn challenges(&self) -> Option<Arc<Challenges>> {
        Some(self.acme.as_ref()?.challenges().clone())
    }

    /// One CA for all, opened when the first one needs it.
    fn authority(&self) -> Result<Arc<Authority>, CertificateError> {
        if let Some(authority) = self.authority.get() {
            return Ok(authority.clone());
        }
        let authority = Arc::new(Authority::open(self.state.as_deref())?);
        Ok(self.authority.get_or_init(|| authority).clone())
    }

    /// All certificates that live in files.
    fn files(&self) -> Vec<Arc<FileCertificate>> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        self.named.values().chain(own.iter()).cloned().collect()
    }

    /// Everything that lives in files.
    pub(super) fn watched(&self) -> Vec<Arc<dyn Look>> {
        let files = self.files().into_iter().map(|file| file as Arc<dyn Look>);
        files.chain(self.clients.values().map(|clients| clients.clone() as Arc<dyn Look>)).collect()
    }

    /// Everything that may be shown with a staple.
    pub(super) fn stapled(&self) -> Vec<Arc<dyn Stapled>> {
        let files = self.files().into_iter().map(|file| file as Arc<dyn Stapled>);
        let acme = self.acme.iter().flat_map(|acme| acme.wanted());
        files.chain(acme.map(|certificate| certificate as Arc<dyn Stapled>)).collect()
    }

    /// Everything, for operators.
    pub(super) fn shown(&self) -> Vec<Shown> {
        let files = self.files();
        let acme = self.acme.iter().flat_map(|acme| acme.wanted());
        files
            .iter()
            .map(|certificate| Shown::file(certificate))
            .chain(acme.map(|certificate| Shown::acme(&certificate)))
            .chain(self.authority.get().map(|authority| Shown::internal(authority)))
            .chain(self.clients.values().map(|clients| Shown::clients(clients)))
            .collect()
    }

    /// Names show from now on what the table says.
    pub(super) fn apply(&self, table: &Table) {
        let mut index = Index::default();
        let mut wanted = Vec::new();
        for (name, wildcard, policy) in table.names.iter() {
            let of = if wildcard { &mut index.one_label } else { &mut index.exact };
            of.insert(name.into(), Arc::new(self.bind(name, wildcard, policy, &mut wanted)));
        }
        for pattern in table.encrypted_hosts() {
            let of = match &pattern {
                HostPattern::Exact(name) => (&mut index.exact, name),
                HostPattern::OneLabel(suffix) => (&mut index.one_label, suffix),
                HostPattern::Labels(_) | HostPattern::Any => continue,
            };
            if of.0.contains_key(of.1) {
                continue;
            }
            // What a wildcard says holds for the names below it.
            let said = match &pattern {
                HostPattern::Exact(name) => table.names.find(name),
                HostPattern::OneLabel(_) | HostPattern::Labels(_) | HostPattern::Any => None,
            };
            if said.is_some_and(|said| said.certificate != NameCertificate::Listener) {
                continue;
            }
            let name = pattern.to_string();
            if let Some(automatic) = self.automatic([name.as_str().into()].into(), &name, &mut wanted) {
                let policy = said.map(|said| policy(said)).unwrap_or_default();
                of.0.insert(of.1.clone(), Arc::new(Named { held: None, automatic: Some(automatic), policy }));
            }
        }
        if let Some(acme) = &self.acme {
            acme.want(&wanted);
        }
        self.by_name.put(index);
    }

    /// What the automatic CA gives these names; nothing if it gives certificates for no such name.
    fn automatic(&self, names: Arc<[Box<str>]>, bound: &str, wanted: &mut Vec<Arc<AcmeCertificate>>) -> Option<Held> {
        let (ca, by_dns) = self.automatic.as_ref()?;
        let gives = |name: &str| is_public(name) && (*by_dns || !name.starts_with("*."));
        if let Some(name) = names.iter().find(|name| !gives(name)) {
            if is_public(name) {
                tracing::warn!(%name, %ca, "the CA proves wildcards by DNS only (`dns`): the listener's own is shown");
            }
            return None;
        }
        self.order(&Wish { ca: ca.clone(), names }, bound, wanted)
    }

    fn order(&self, wish: &Wish, bound: &str, wanted: &mut Vec<Arc<AcmeCertificate>>) -> Option<Held> {
        let certificate = self.acme.as_ref()?.certificate(wish);
        let before = self.shown_before(bound, &certificate);
        wanted.push(certificate.clone());
        Some(Held::Acme(certificate, before))
    }

    /// A name that is to get its first certificate from a CA shows until then what it showed.
    fn shown_before(&self, name: &str, certificate: &Arc<AcmeCertificate>) -> Option<Arc<Held>> {
        if certificate.is_whole() {
            return None;
        }
        let named = self.by_name.find(&name.replace('*', "_"))?;
        match named.held.clone().or_else(|| named.automatic.clone())? {
            Held::Acme(same, before) if Arc::ptr_eq(&same, certificate) => before,
            // One that has nothing to show leaves what was there before it.
            Held::Acme(other, before) if !other.is_whole() => before,
            Held::Acme(other, _) => Some(Arc::new(Held::Acme(other, None))),
            other => Some(Arc::new(other)),
        }
    }

    fn bind(&self, name: &str, wildcard: bool, words: &NamePolicy, wanted: &mut Vec<Arc<AcmeCertificate>>) -> Named {
        let bound = if wildcard { format!("*.{name}") } else { name.to_owned() };
        let held = match &words.certificate {
            NameCertificate::Listener => None,
            NameCertificate::Internal => match self.authority() {
                Ok(authority) => Some(Held::Internal(authority)),
                Err(error) => {
                    tracing::error!(%error, name, "no local CA: the name shows the listener's certificate");
                    None
                }
            },
            NameCertificate::Acme(ca) => {
                let wish = Wish { ca: ca.clone(), names: words.names.clone() };
                self.order(&wish, &bound, wanted)
            }
            // The document was checked against the settings; a name it may not know here is shown the listener's.
            NameCertificate::Named(certificate) => self.named.get(&**certificate).cloned().map(Held::Files),
        };
        let automatic = match held {
            None => self.automatic(words.names.clone(), &bound, wanted),
            Some(_) => None,
        };
        Named { held, automatic, policy: policy(words) }
    }
}

fn policy(words: &NamePolicy) -> Policy {
    let offers = |version| words.versions.as_ref().is_none_or(|versions| versions.contains(&version));
    Policy {
        only_tls13: words.min_version == TlsVersion::V1_3,
        no_h1: !offers(HttpVersion::H1),
        no_h2: !offers(HttpVersion::H2),
        clients: words.client_certificate.as_ref().map(|clients| ClientPolicy {
            authority: clients.ca.as_str().into(),
            required: clients.mode == ClientCertificateMode::Require,
        }),
    }
}

/// Whether a CA may give the name a certificate: not addresses, not names that only this machine or network knows
/// (RFC 6761, RFC 6762, RFC 9476 and what ICANN set aside).
fn is_public(name: &str) -> bool {
    let name = name.trim_start_matches("*.");
    let private = ["localhost", "local", "internal", "home.arpa"];
    let below = |end: &str| name == end || name.strip_suffix(end).is_some_and(|front| front.ends_with('.'));
    name.contains('.')
        && !name.starts_with('[')
        && name.parse::<std::net::IpAddr>().is_err()
        && !private.into_iter().any(below)
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_of_a_private_network_are_not_asked_for() {
        let is_public = super::is_public;
        assert!(is_public("app.example.com") && is_public("*.example.com") && is_public("mylocal.example"));
        for name in ["localhost", "a.localhost", "app.internal", "printer.local", "host", "192.0.2.1", "[::1]"] {
            assert!(!is_public(name), "{name}");
        }
    }
}
