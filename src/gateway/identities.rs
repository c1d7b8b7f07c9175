//! Everything a gateway can show as its own: certificate files, the local CA, and which name shows what.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::StartError;
use crate::config::TlsVersion;
use crate::routes::{NameCertificate, NamePolicy, Table};
use crate::settings::{Certificate, CertificateFiles, Listen, Settings};
use crate::tls::{
    Acme, AcmeCertificate, Authority, ByName, CertificateError, Certificates, Challenges, FileCertificate, Held, Index,
    Named, Shown, Tls,
};

/// Opened once at start; files that are broken are told then.
pub(super) struct Identities {
    state: Option<std::path::PathBuf>,
    named: BTreeMap<String, Arc<FileCertificate>>,
    /// Those of listeners.
    own: Mutex<Vec<Arc<FileCertificate>>>,
    authority: OnceLock<Arc<Authority>>,
    acme: Option<Arc<Acme>>,
    by_name: Arc<ByName>,
}

impl Identities {
    pub(super) fn open(settings: &Settings) -> Result<Identities, StartError> {
        let open = |(name, files): (&String, &CertificateFiles)| match FileCertificate::open(name, files) {
            Ok(certificate) => Ok((name.clone(), Arc::new(certificate))),
            Err(source) => Err(StartError::NamedCertificate { name: name.clone(), source }),
        };
        let acme = match &settings.state.dir {
            Some(dir) if !settings.ca.is_empty() => {
                let failed = |source| StartError::State { path: dir.clone(), source };
                Some(Arc::new(Acme::open(dir, &settings.ca).map_err(failed)?))
            }
            _ => None,
        };
        Ok(Identities {
            acme,
            state: settings.state.dir.clone(),
            named: settings.certificate.iter().map(open).collect::<Result<_, _>>()?,
            own: Mutex::default(),
            authority: OnceLock::new(),
            by_name: Arc::default(),
        })
    }

    /// What a listener shows.
    pub(super) fn listener(&self, listen: &Listen) -> Result<Tls, CertificateError> {
        let held = match &listen.certificate {
            Some(Certificate::Files(files)) => {
                let certificate = Arc::new(FileCertificate::open(&listen.name, files)?);
                self.own.lock().unwrap_or_else(PoisonError::into_inner).push(certificate.clone());
                Held::Files(certificate)
            }
            Some(Certificate::Internal(_)) | None => Held::Internal(self.authority()?),
        };
        let certificates = Certificates::new(held, listen.unknown_names, self.by_name.clone());
        Tls::new(listen, Arc::new(certificates), self.challenges())
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
    pub(super) fn files(&self) -> Vec<Arc<FileCertificate>> {
        let own = self.own.lock().unwrap_or_else(PoisonError::into_inner);
        self.named.values().chain(own.iter()).cloned().collect()
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
            .collect()
    }

    /// Names show from now on what the table says.
    pub(super) fn apply(&self, table: &Table) {
        let mut index = Index::default();
        for (name, wildcard, policy) in table.names.iter() {
            let of = if wildcard { &mut index.one_label } else { &mut index.exact };
            of.insert(name.into(), self.bind(name, policy));
        }
        if let Some(acme) = &self.acme {
            let held = index.exact.values().filter_map(|named| match &named.held {
                Some(Held::Acme(certificate, _)) => Some(certificate.clone()),
                Some(Held::Files(_) | Held::Internal(_)) | None => None,
            });
            acme.want(&held.collect::<Vec<_>>());
        }
        self.by_name.put(index);
    }

    /// A name that is to get its first certificate from a CA shows until then what it showed.
    fn shown_before(&self, name: &str, certificate: &Arc<AcmeCertificate>) -> Option<Arc<Held>> {
        if certificate.current().is_some() {
            return None;
        }
        match self.by_name.find(name)?.held? {
            Held::Acme(same, before) if Arc::ptr_eq(&same, certificate) => before,
            other => Some(Arc::new(other)),
        }
    }

    fn bind(&self, name: &str, policy: &NamePolicy) -> Named {
        let held = match &policy.certificate {
            NameCertificate::Listener => None,
            NameCertificate::Internal => match self.authority() {
                Ok(authority) => Some(Held::Internal(authority)),
                Err(error) => {
                    tracing::error!(%error, name, "no local CA: the name shows the listener's certificate");
                    None
                }
            },
            NameCertificate::Acme(ca) => self.acme.as_ref().map(|acme| {
                let certificate = acme.certificate(ca, name);
                let before = self.shown_before(name, &certificate);
                Held::Acme(certificate, before)
            }),
            // The document was checked against the settings; a name it may not know here is shown the listener's.
            NameCertificate::Named(certificate) => self.named.get(&**certificate).cloned().map(Held::Files),
        };
        Named { held, only_tls13: policy.min_version == TlsVersion::V1_3 }
    }
}
