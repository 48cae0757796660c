//! Why a pull or push failed, in Docker's words where clients know them.

use std::path::PathBuf;
use std::time::Duration;

use silo_oci::reference::Reference;
use silo_types::{Digest, ErrorKind, Kind};

use crate::problem::Problem;

/// Why an operation on a registry failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refused.
    #[error("{text}")]
    Refused {
        /// The answer's status.
        status: u16,
        /// The specification's code, `MANIFEST_UNKNOWN`, or empty.
        code: String,
        /// What it said.
        text: String,
        /// What kind of refusal it is.
        kind: ErrorKind,
        /// How long it asks to be left alone.
        after: Option<Duration>,
    },
    /// The exchange failed.
    #[error(transparent)]
    Http(#[from] silo_http::Error),
    /// The registry wants a name and a password, and there are none.
    #[error("no basic auth credentials")]
    NoCredentials,
    /// The name has no host to ask.
    #[error("invalid reference format: it names no registry")]
    NoHost,
    /// A mirror's URL cannot be used.
    #[error("invalid mirror: {url:?}: it may not have a user or a password")]
    Mirror {
        /// As it was configured.
        url: String,
    },
    /// A registry's certificates cannot be read.
    #[error("certificates of a registry: {}", path.display())]
    Certificates {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A `hosts.toml` cannot be used.
    #[error("configuration of a registry: {}", path.display())]
    Hosts {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A client certificate without its key.
    #[error(
        "missing key {} for client certificate {}. Note that CA certificates should use the \
         extension .crt", key.display(), certificate.display()
    )]
    MissingKey {
        /// The certificate.
        certificate: PathBuf,
        /// Where the key should be.
        key: PathBuf,
    },
    /// A key without its certificate.
    #[error("missing client certificate {} for key {}", certificate.display(), key.display())]
    MissingCertificate {
        /// Where the certificate should be.
        certificate: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// The server's answer is not one of the protocol's.
    #[error("{url}: {reason}")]
    Protocol {
        /// What was asked.
        url: String,
        /// What is wrong.
        reason: String,
    },
    /// An answer is larger than anything of its kind is.
    #[error("{what} of {url} is larger than {limit} bytes")]
    TooLarge {
        /// What was asked.
        url: String,
        /// What it is.
        what: &'static str,
        /// The limit in bytes.
        limit: usize,
    },
    /// Content is not what its digest says.
    #[error("{what} verification failed for digest {expected}: it has {actual}")]
    Digest {
        /// What was checked.
        what: &'static str,
        /// What it should be.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// A document cannot be used.
    #[error("{what}")]
    Document {
        /// Which.
        what: String,
        /// Why.
        #[source]
        source: silo_oci::image::ImageError,
    },
    /// It is no image.
    // docker wording first
    #[error(
        "Encountered remote {media_type:?}({class}) when fetching: {}",
        not_an_image(media_type)
    )]
    NotAnImage {
        /// Type of what stands for the configuration.
        media_type: String,
        /// What that is.
        class: &'static str,
    },
    /// A manifest of a form that is no longer used.
    #[error(
        "Docker Image Format v1 and Docker Image manifest version 2, schema 1 support has been \
         removed. Suggest the author of {reference} to upgrade the image to the OCI Format or \
         Docker Image manifest v2, schema 2. More information at \
         https://docs.docker.com/go/deprecated-image-specs/"
    )]
    Schema1 {
        /// The image.
        reference: String,
    },
    /// A document of a type that nobody knows.
    #[error("unsupported media type {0}")]
    MediaType(String),
    /// The index has nothing that runs on the platform.
    #[error("no matching manifest for {wanted} in the manifest list entries: there is {found}")]
    NoPlatform {
        /// What was asked for.
        wanted: String,
        /// What there is.
        found: String,
    },
    /// The image is for another platform.
    #[error(
        "image with reference {reference} was found but its platform ({found}) does not match \
         the specified platform ({wanted})"
    )]
    OtherPlatform {
        /// The image.
        reference: String,
        /// What was asked for.
        wanted: String,
        /// What it is for.
        found: String,
    },
    /// No index answers.
    #[error("{text}")]
    NoIndex {
        /// Which, and why.
        text: String,
    },
    /// An index has no results.
    #[error("unexpected status code {status}")] // docker wording
    Status {
        /// The answer's status.
        status: u16,
    },
    /// The results of a search cannot be read.
    #[error("error decoding registry search results")] // docker wording
    SearchResults(#[source] serde_json::Error),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] silo_store::Error),
    /// The disk has no room for what is pulled.
    // docker wording first
    #[error(
        "failed to register layer: write {path}: no space left on device: the engine's data root \
         is full; `docker system df` tells what takes room, `docker system prune` removes what is \
         not used"
    )]
    NoRoom {
        /// What could not be written.
        path: String,
    },
    /// Reading what is to be pushed failed.
    #[error("read a layer")]
    Read(#[source] std::io::Error),
    /// A part of the operation ended by itself.
    #[error("{0}")]
    Broken(&'static str),
    /// No layers can stand in for those of an image.
    #[error(transparent)]
    Base(silo_types::Error),
    /// A layer that never was here is nowhere to be had.
    #[error(
        "the base layer {digest} is not on {target}, and cannot be copied from where the image \
         came from{} pull the image with --base=exact, and push it again", who_has(wants.as_deref())
    )]
    NoSource {
        /// The blob.
        digest: Digest,
        /// The registry that lacks it.
        target: String,
        /// A registry that has it, perhaps, for those who may see it.
        wants: Option<String>,
        /// Why the last place did not give it.
        #[source]
        source: Option<Box<Error>>,
    },
    /// The client went away.
    #[error("context canceled")] // docker wording
    Cancelled,
    /// Another error, with what to do about it.
    #[error("{text}: {advice}")]
    Advised {
        /// The other error and its causes.
        text: String,
        /// What to do.
        advice: String,
        /// The kind of the other.
        kind: ErrorKind,
    },
    /// The image cannot be pushed or pulled, with Docker's words around the reason.
    #[error("{context}")]
    Image {
        /// Which image, and what is the matter with it.
        context: String,
        /// The kind, by which clients tell what to do.
        kind: ErrorKind,
        /// Why.
        #[source]
        source: Box<Error>,
    },
}

/// What to do with a registry that wants credentials.
fn who_has(wants: Option<&str>) -> String {
    let advice = |domain: &str| {
        format!(
            ", {domain}, which wants credentials: `silo login {domain}`, and push with `silo push`, \
             which sends them with those for the target; or"
        )
    };
    wants.map_or_else(|| ";".to_owned(), advice)
}

/// Why a thing of this type is none to pull, and who takes it.
fn not_an_image(media_type: &str) -> String {
    if media_type.ends_with("+encrypted") {
        return "the layer is encrypted, and has to be decrypted where it is copied from"
            .to_owned();
    }
    let who = if media_type.starts_with("application/vnd.cncf.helm.") {
        "helm pull takes it"
    } else {
        "the program that made it takes it, or a client for artifacts such as oras"
    };
    format!("this is not a container image; {who}")
}

impl Error {
    /// A refusal from what the server said.
    pub(crate) fn refused(status: u16, problem: Problem, after: Option<Duration>) -> Self {
        let kind = problem.kind(status);
        Self::Refused { status, code: problem.code, text: problem.text, kind, after }
    }

    /// After which time, as far as the server says it, the same may succeed; `None` if it will
    /// not.
    pub(crate) fn passing(&self) -> Option<Duration> {
        match self {
            Self::Refused { status: 408 | 429 | 500 | 502 | 503 | 504, after, .. } => {
                Some(after.unwrap_or_default())
            }
            Self::Http(error) if error.is_transient() => Some(Duration::ZERO),
            _ => None,
        }
    }

    /// Whether no server answered, so that another may be asked in its place.
    pub(crate) fn is_unanswered(&self) -> bool {
        matches!(self, Self::Http(silo_http::Error::Exchange { .. }))
    }

    /// With what to do about it, where that is known, for people who asked for `domain`.
    pub(crate) fn advised(self, domain: &str) -> Self {
        use silo_http::Cause;
        let advice = match &self {
            Self::Http(silo_http::Error::Exchange { cause, .. }) => match cause {
                Cause::UnknownAuthority => format!(
                    "put the certificate of its authority into /etc/silo/certs.d/{domain}/ca.crt"
                ),
                Cause::BadCertificate(_) => {
                    "the registry needs another certificate, or this host's clock is wrong".into()
                }
                Cause::Alert(words) if words.contains("certificate") => format!(
                    "put the client's certificate and key into /etc/silo/certs.d/{domain}/ as \
                     client.cert and client.key"
                ),
                Cause::PlainAnswer => format!(
                    "if it is to have no TLS, start the daemon with --insecure-registry {domain}"
                ),
                _ => return self,
            },
            Self::Refused { status: 429, after: Some(after), .. } if !after.is_zero() => {
                format!("the registry asks to wait for {} s", after.as_secs())
            }
            _ => return self,
        };
        Self::Advised { text: silo_types::error::chain(&self), advice, kind: self.kind() }
    }

    /// Whether the server is not where one without certificate may be.
    pub(crate) fn is_outside(&self) -> bool {
        use silo_http::Cause;
        matches!(self, Self::Http(silo_http::Error::Exchange { cause: Cause::Outside(_), .. }))
    }

    /// Whether the server speaks TLS, but not to our liking or we not to its.
    pub(crate) fn is_of_tls(&self) -> bool {
        use silo_http::Cause;
        let Self::Http(silo_http::Error::Exchange { cause, .. }) = self else { return false };
        matches!(cause, Cause::UnknownAuthority | Cause::BadCertificate(_) | Cause::Alert(_))
    }

    /// In Docker's words, if it is that a layer has not its digest.
    pub(crate) fn of_layer(self, layer: &Digest) -> Self {
        match self {
            Self::Store(silo_store::Error::DigestMismatch { actual, expected, .. })
                if expected == *layer =>
            {
                Self::Digest { what: "filesystem layer", expected, actual }
            }
            error => error,
        }
    }

    /// Whether what came is not what it should be.
    pub(crate) fn is_of_content(&self) -> bool {
        matches!(
            self,
            Self::Protocol { .. }
                | Self::Digest { .. }
                | Self::Http(silo_http::Error::Body { .. })
                | Self::Store(silo_store::Error::DigestMismatch { .. })
        )
    }

    /// Whether the server has not what was asked for.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// With the words that Docker has around the failure of a pull.
    pub(crate) fn of_pull(mut self, reference: &Reference) -> Self {
        // As with dockerd: of a 401, docker's command line would ask for a password.
        if let Self::Refused { kind: kind @ ErrorKind::Unauthorized, .. } = &mut self {
            *kind = ErrorKind::Internal;
        }
        if let Self::Store(error) = &self
            && let Some(path) = error.lacks_room()
        {
            return Self::NoRoom { path };
        }
        let Self::Refused { code, .. } = &self else { return self };
        let name = reference.familiar_name();
        // docker wording
        let context = match code.as_str() {
            "DENIED" => format!(
                "pull access denied for {name}, repository does not exist or may require 'docker \
                 login'"
            ),
            "MANIFEST_UNKNOWN" => format!("manifest for {} not found", reference.familiar()),
            "NAME_UNKNOWN" => format!("repository {name} not found"),
            _ => return self,
        };
        Self::Image { context, kind: ErrorKind::NotFound, source: Box::new(self) }
    }
}

impl Kind for Error {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Refused { kind, .. } | Self::Image { kind, .. } | Self::Advised { kind, .. } => {
                *kind
            }
            Self::Http(error) => match error.kind() {
                // That the host has no address is not that the image is not there.
                ErrorKind::NotFound => ErrorKind::Internal,
                kind => kind,
            },
            // As with dockerd: of a 401, docker's command line would ask for a password.
            Self::NoCredentials => ErrorKind::Internal,
            Self::NoHost
            | Self::NoIndex { .. }
            | Self::NotAnImage { .. }
            | Self::MediaType(_)
            | Self::Schema1 { .. }
            | Self::Document { .. } => ErrorKind::InvalidParameter,
            Self::NoPlatform { .. } | Self::OtherPlatform { .. } => ErrorKind::NotFound,
            Self::Store(error) => error.kind(),
            Self::Base(error) => error.kind(),
            Self::NoSource { .. } => ErrorKind::NotFound,
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Mirror { .. }
            | Self::Certificates { .. }
            | Self::Hosts { .. }
            | Self::MissingKey { .. }
            | Self::MissingCertificate { .. }
            | Self::Protocol { .. }
            | Self::Status { .. }
            | Self::SearchResults(_)
            | Self::TooLarge { .. }
            | Self::Digest { .. }
            | Self::NoRoom { .. }
            | Self::Read(_)
            | Self::Broken(_) => ErrorKind::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls_fail_in_dockers_words() {
        let reference = Reference::parse_normalized("busybox:no").unwrap();
        for (code, text, expected) in [
            (
                "MANIFEST_UNKNOWN",
                "manifest unknown: manifest unknown",
                "manifest for busybox:no not found: manifest unknown: manifest unknown",
            ),
            (
                "DENIED",
                "denied: requested access to the resource is denied",
                "pull access denied for busybox, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
            ),
            (
                "NAME_UNKNOWN",
                "name unknown: repository name not known to registry",
                "repository busybox not found: name unknown: repository name not known to registry",
            ),
            (
                "UNAUTHORIZED",
                "unauthorized: authentication required",
                "unauthorized: authentication required",
            ),
        ] {
            let problem = Problem { code: code.into(), text: text.into() };
            let error = Error::refused(404, problem, None).of_pull(&reference);
            assert_eq!(silo_types::error::chain(&error), expected);
        }
    }

    #[test]
    fn what_is_tried_again() {
        let refused = |status| {
            let problem = Problem { code: String::new(), text: String::new() };
            Error::refused(status, problem, None).passing().is_some()
        };
        for (status, expected) in
            [(400, false), (401, false), (404, false), (408, true), (429, true), (500, true)]
        {
            assert_eq!(refused(status), expected, "{status}");
        }
        assert!(Error::NoCredentials.passing().is_none());
    }
}
