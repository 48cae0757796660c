//! What a client asks of the Dockerfile frontend: names and values as BuildKit has them.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use silo_archive::compress::Compression;
use silo_build::{CacheForm, Limits};
use silo_docker::host_config::Ulimit;
use silo_oci::platform::Platform;
use silo_oci::reference::Reference;
use silo_types::{Digest, Error, ErrorKind, csv};

use crate::push::packing;

/// Attributes of a frontend.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes(pub(crate) HashMap<String, String>);

/// Caches that steps may be taken from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CacheFrom {
    /// Images in the store.
    pub(crate) images: Vec<String>,
    /// Those of the images whose registries may be without TLS.
    pub(crate) insecure: Vec<String>,
    /// Directories of the client, with the manifests that are meant.
    pub(crate) directories: Vec<(String, Digest)>,
}

/// Where the cache of a build goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct CacheTo {
    /// Into the image.
    pub(crate) inline: bool,
    /// Elsewhere.
    pub(crate) exports: Vec<CacheExport>,
}

/// Where a cache may go to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum CachePlace {
    /// A directory of the client.
    Directory(String),
    /// A tag on a registry, which (`true`) may be without TLS.
    Registry(Reference, bool),
}

/// What takes a cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CacheExport {
    /// Where it is.
    pub(crate) place: CachePlace,
    /// All steps, not only those of the image's layers.
    pub(crate) max: bool,
    /// A failure does not fail the build.
    pub(crate) ignore_error: bool,
    /// Its documents and blobs.
    pub(crate) form: CacheForm,
}

/// A kind of cache that is not here.
fn unknown_cache(what: &str, kind: &str) -> Error {
    // BuildKit's wording.
    Error::invalid(format!("unknown cache {what}: {kind:?}: there are inline, local and registry"))
}

/// An error for what this version does not do.
pub(crate) fn not_yet(what: &str) -> Error {
    let text = format!("{what}: not supported by this version of Silo");
    Error::new(ErrorKind::NotImplemented, text)
}

impl CacheTo {
    /// Adds an export by its kind and attributes.
    pub(crate) fn add(
        &mut self,
        kind: &str,
        attributes: &HashMap<String, String>,
    ) -> Result<(), Error> {
        let where_to = match kind {
            "inline" => {
                self.inline = true;
                return Ok(());
            }
            "local" => "dest",
            "registry" => "ref",
            other => return Err(unknown_cache("exporter", other)),
        };
        let (mut place, mut max, mut ignore_error) = ("", false, false);
        let (mut oci_types, mut is_manifest, mut insecure) = (true, None, false);
        for (name, value) in attributes {
            match (name.as_str(), value.as_str()) {
                (name, value) if name == where_to => place = value,
                ("mode", "min") => max = false,
                ("mode", "max") => max = true,
                ("mode", other) => {
                    return Err(Error::invalid(format!("unknown cache mode {other:?}")));
                }
                ("ignore-error", text) => ignore_error = boolean(name, text)?,
                ("oci-mediatypes", text) => oci_types = boolean(name, text)?,
                ("image-manifest", text) => is_manifest = Some(boolean(name, text)?),
                ("registry.insecure", text) if kind == "registry" => {
                    insecure = boolean(name, text)?;
                }
                ("compression" | "compression-level" | "force-compression", _) => {}
                // The client's own.
                ("tag" | "reset", _) if kind == "local" => {}
                (name, value) => {
                    return Err(not_yet(&format!("{name}={value} of a {kind} cache")));
                }
            }
        }
        let (packing, force) = packing(&Attributes(attributes.clone()), Compression::Gzip)?;
        let is_manifest = is_manifest.unwrap_or(oci_types);
        if is_manifest && !oci_types {
            // BuildKit's wording.
            return Err(Error::invalid(
                "invalid configuration for remote cache, OCI mediatypes are required for \
                 image-manifest cache format",
            ));
        }
        let form = CacheForm { packing, force, oci_types, is_manifest };
        if place.is_empty() {
            // BuildKit's wording.
            return Err(Error::invalid(format!("{kind} cache exporter requires {where_to}")));
        }
        let place = match kind {
            "registry" => {
                let parsed = Reference::parse_normalized(place).ok();
                let name = parsed.filter(|name| name.digest().is_none()).ok_or_else(|| {
                    Error::invalid(format!("invalid reference {place:?} of a registry cache"))
                })?;
                CachePlace::Registry(name, insecure)
            }
            _ => CachePlace::Directory(place.to_owned()),
        };
        self.exports.push(CacheExport { place, max, ignore_error, form });
        Ok(())
    }
}

/// Where a context is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// A directory of the client.
    Local(String),
    /// A git repository.
    Git(String),
    /// A file or an archive.
    Http(String),
    /// An archive that the client reads from its standard input.
    Upload(String),
    /// An image.
    Image(String),
    /// The result of another build of this client.
    Input(String),
    /// An image, or a list of them, in a layout that the client has.
    Layout {
        /// The layout's name in the session.
        store: String,
        /// The manifest or index.
        digest: Digest,
    },
    /// Nothing.
    Empty,
}

impl Attributes {
    /// A value; empty where there is none.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    /// Values whose names begin with a prefix, without it.
    pub(crate) fn prefixed(&self, prefix: &str) -> BTreeMap<String, String> {
        self.0
            .iter()
            .filter_map(|(name, value)| {
                Some((name.strip_prefix(prefix)?.to_owned(), value.clone()))
            })
            .collect()
    }

    /// The Dockerfile's path.
    pub(crate) fn filename(&self) -> &str {
        match self.get("filename") {
            "" => "Dockerfile",
            name => name,
        }
    }

    /// The name of the client's directory with the Dockerfile, and whether it is used even though
    /// the context is elsewhere.
    pub(crate) fn dockerfile(&self) -> (&str, bool) {
        match self.get("dockerfilekey") {
            "" => ("dockerfile", false),
            name => (name, true),
        }
    }

    /// The main context.
    pub(crate) fn context(&self) -> Result<Place, Error> {
        let key = match self.get("contextkey") {
            "" => "context",
            key => key,
        };
        match self.get(key) {
            "" => Ok(Place::Local("context".to_owned())),
            place => remote(place)
                .ok_or_else(|| Error::invalid(format!("invalid build context {place:?}"))),
        }
    }

    /// Contexts by name.
    pub(crate) fn named_contexts(&self) -> Result<BTreeMap<String, Place>, Error> {
        let mut contexts = BTreeMap::new();
        for (name, value) in self.prefixed("context:") {
            let (kind, rest) = value.split_once(':').ok_or_else(|| {
                Error::invalid(format!("invalid context specifier {value} for {name}"))
            })?;
            let place = match kind {
                "docker-image" => match rest.trim_start_matches('/') {
                    "scratch" => Place::Empty,
                    image => Place::Image(image.to_owned()),
                },
                "local" => Place::Local(rest.to_owned()),
                "oci-layout" => layout(rest)?,
                "input" => Place::Input(rest.to_owned()),
                _ => remote(&value).ok_or_else(|| {
                    Error::invalid(format!("unsupported context source {kind} for {name}"))
                })?,
            };
            contexts.insert(name, place);
        }
        Ok(contexts)
    }

    /// Platforms to build for; none for the default.
    pub(crate) fn platforms(&self) -> Result<Vec<Platform>, Error> {
        let list = self.get("platform").split(',').filter(|text| !text.is_empty());
        list.map(|text| {
            text.parse().map_err(|error| {
                Error::invalid(format!("failed to parse target platform {text}: {error}"))
            })
        })
        .collect()
    }

    /// Is the result to be a list of images even for one platform?
    pub(crate) fn multi_platform(&self) -> Result<bool, Error> {
        let wanted = match self.get("build-arg:BUILDKIT_MULTI_PLATFORM") {
            "" => self.get("multi-platform"),
            argument => argument,
        };
        boolean("multi-platform", wanted)
    }

    /// Whether the cache is not used, and the stages for which it is not.
    pub(crate) fn no_cache(&self) -> (bool, Vec<String>) {
        match self.0.get("no-cache").map(String::as_str) {
            None => (false, Vec::new()),
            Some("") => (true, Vec::new()),
            Some(stages) => (false, stages.split(',').map(str::to_owned).collect()),
        }
    }

    /// The network of `RUN`.
    pub(crate) fn network(&self) -> Result<String, Error> {
        match self.get("force-network-mode") {
            "" | "sandbox" => Ok(String::new()),
            mode @ ("none" | "host") => Ok(mode.to_owned()),
            mode => Err(Error::invalid(format!("invalid netmode {mode}"))),
        }
    }

    /// Lines for `/etc/hosts` as `name:address`.
    pub(crate) fn extra_hosts(&self) -> Result<Vec<String>, Error> {
        let mut hosts = Vec::new();
        for field in fields(self.get("add-hosts"))? {
            let lower = field.to_lowercase();
            let (name, address) = lower
                .split_once('=')
                .ok_or_else(|| Error::invalid(format!("invalid key-value pair {field}")))?;
            // buildx writes the address itself, which it has of our label.
            if address != "host-gateway" && address.parse::<IpAddr>().is_err() {
                return Err(Error::invalid(format!("failed to parse IP {address}")));
            }
            hosts.push(format!("{name}:{address}"));
        }
        Ok(hosts)
    }

    /// Limits of the containers of `RUN`.
    pub(crate) fn limits(&self) -> Result<Limits, Error> {
        let number = |name: &str| -> Result<i64, Error> {
            match self.get(name) {
                "" => Ok(0),
                text => text
                    .parse()
                    .map_err(|_| Error::invalid(format!("invalid {name} value: {text}"))),
            }
        };
        let mut limits = Limits {
            shm_size: number("shm-size")?,
            memory: number("memory")?,
            memory_swap: number("memswap")?,
            cpu_shares: number("cpushares")?,
            cpu_period: number("cpuperiod")?,
            cpu_quota: number("cpuquota")?,
            cpuset_cpus: self.get("cpusetcpus").to_owned(),
            cpuset_mems: self.get("cpusetmems").to_owned(),
            cgroup_parent: self.get("cgroup-parent").to_owned(),
            ..Limits::default()
        };
        for field in fields(self.get("ulimit"))? {
            limits.ulimits.push(ulimit(&field)?);
        }
        Ok(limits)
    }

    /// Caches that steps may be taken from.
    pub(crate) fn cache_from(&self) -> Result<CacheFrom, Error> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Entry {
            #[serde(default)]
            r#type: String,
            #[serde(default)]
            attrs: HashMap<String, String>,
        }
        let mut from = CacheFrom::default();
        let imports = self.get("cache-imports");
        if !imports.is_empty() {
            let entries: Vec<Entry> = serde_json::from_str(imports).map_err(|error| {
                Error::invalid(format!("failed to unmarshal cache-imports: {error}"))
            })?;
            for mut entry in entries {
                let mut take = |name: &str| {
                    entry.attrs.remove(name).filter(|value| !value.is_empty()).ok_or_else(|| {
                        // BuildKit's wording.
                        let kind = &entry.r#type;
                        Error::invalid(format!("{kind} cache importer requires {name}"))
                    })
                };
                match entry.r#type.as_str() {
                    "registry" => {
                        let name = take("ref")?;
                        let insecure = entry.attrs.get("registry.insecure");
                        if boolean("registry.insecure", insecure.map_or("", |text| text))? {
                            from.insecure.push(name.clone());
                        }
                        from.images.push(name);
                    }
                    "local" => {
                        let (directory, digest) = (take("src")?, take("digest")?);
                        let manifest = digest.parse().map_err(|_| {
                            Error::invalid(format!("invalid digest {digest:?} of a cache"))
                        })?;
                        from.directories.push((directory, manifest));
                    }
                    other => return Err(unknown_cache("importer", other)),
                }
            }
        }
        let old = self.get("cache-from").split(',').filter(|image| !image.is_empty());
        from.images.extend(old.map(str::to_owned));
        from.images.sort();
        from.images.dedup();
        Ok(from)
    }

    /// Whether the image is to say how its layers are found as a cache.
    pub(crate) fn inline_cache(&self) -> Result<bool, Error> {
        boolean("BUILDKIT_INLINE_CACHE", self.get("build-arg:BUILDKIT_INLINE_CACHE"))
    }

    /// The time that stands in for now.
    pub(crate) fn source_date_epoch(&self) -> Result<Option<i64>, Error> {
        match self.get("build-arg:SOURCE_DATE_EPOCH") {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| Error::invalid(format!("invalid SOURCE_DATE_EPOCH: {text}"))),
        }
    }
}

/// `//NAME[:TAG]@DIGEST`, where the name is one of the session's.
fn layout(text: &str) -> Result<Place, Error> {
    let shown = text.trim_start_matches('/');
    let (name, digest) = shown.split_once('@').ok_or_else(|| {
        // BuildKit's wording.
        Error::invalid(format!("oci-layout reference {shown:?} has no digest"))
    })?;
    let digest = digest
        .parse()
        .map_err(|_| Error::invalid(format!("could not parse oci-layout reference {shown:?}")))?;
    let store = name.split(':').next().unwrap_or_default().to_owned();
    Ok(Place::Layout { store, digest })
}

/// A context that is not a directory of the client.
pub(crate) fn remote(place: &str) -> Option<Place> {
    let path = place.split(['#', '?']).next().unwrap_or_default();
    if let Some(rest) = place.strip_prefix("http://buildkit-session/") {
        return Some(Place::Upload(rest.to_owned()));
    }
    if place.starts_with("http://") || place.starts_with("https://") {
        let is_git = path.strip_suffix(".git").is_some();
        let place = place.to_owned();
        return Some(if is_git { Place::Git(place) } else { Place::Http(place) });
    }
    let git = ["git://", "git@", "ssh://", "git+", "github.com/"];
    git.iter().any(|prefix| place.starts_with(prefix)).then(|| Place::Git(place.to_owned()))
}

/// A boolean as Go's `strconv.ParseBool` reads it; empty for no.
pub(crate) fn boolean(name: &str, text: &str) -> Result<bool, Error> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "" | "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(Error::invalid(format!("invalid boolean value for {name}: {other}"))),
    }
}

/// A number that is not negative.
pub(crate) fn number(name: &str, text: &str) -> Result<u32, Error> {
    text.parse().map_err(|_| Error::invalid(format!("invalid {name} value: {text}")))
}

/// `name=soft[:hard]`.
fn ulimit(text: &str) -> Result<Ulimit, Error> {
    let bad = || Error::invalid(format!("invalid ulimit argument: {text}"));
    let (name, values) = text.split_once('=').ok_or_else(bad)?;
    let (soft, hard) = match values.split_once(':') {
        Some((soft, hard)) => (soft, hard),
        None => (values, values),
    };
    let soft: i64 = soft.parse().map_err(|_| bad())?;
    let hard: i64 = hard.parse().map_err(|_| bad())?;
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

/// The fields of a record of comma-separated values; empty text has none.
fn fields(line: &str) -> Result<Vec<String>, Error> {
    if line.is_empty() {
        return Ok(Vec::new());
    }
    csv::fields(line).map_err(|error| Error::invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use silo_archive::compress::Packing;

    use super::*;

    fn attributes(pairs: &[(&str, &str)]) -> Attributes {
        Attributes(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect())
    }

    #[test]
    fn contexts_are_told_apart() {
        let named = attributes(&[
            ("context:a", "local:_context"),
            ("context:b", "docker-image://busybox"),
            ("context:c", "https://host/x.git#v1:sub"),
            ("context:d", "https://host/x.tar.gz"),
            ("context:e", "docker-image://scratch"),
            ("context:f", "input:f"),
            ("context:g", "git@github.com:a/b.git"),
            (
                "context:h",
                "oci-layout://abc:latest@sha256:\
                 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
        ])
        .named_contexts()
        .unwrap();
        let places: Vec<_> = named.into_values().collect();
        assert_eq!(
            places,
            [
                Place::Local("_context".into()),
                Place::Image("busybox".into()),
                Place::Git("https://host/x.git#v1:sub".into()),
                Place::Http("https://host/x.tar.gz".into()),
                Place::Empty,
                Place::Input("f".into()),
                Place::Git("git@github.com:a/b.git".into()),
                Place::Layout { store: "abc".into(), digest: silo_oci::image::digest(b"") },
            ]
        );
        let bad = attributes(&[("context:a", "nonsense")]);
        assert!(bad.named_contexts().unwrap_err().message().contains("invalid context specifier"));
        let bad = attributes(&[("context:a", "oci-layout://abc:latest")]);
        assert!(bad.named_contexts().unwrap_err().message().contains("has no digest"));
        let bad = attributes(&[("context:a", "file:///etc")]);
        assert!(bad.named_contexts().unwrap_err().message().contains("unsupported context source"));
        let upload = attributes(&[("context", "http://buildkit-session/abc")]);
        assert_eq!(upload.context().unwrap(), Place::Upload("abc".into()));
        assert_eq!(attributes(&[]).context().unwrap(), Place::Local("context".into()));
    }

    const IMPORTS: &str = r#"[{"Type":"registry","Attrs":{"ref":"x/y"}},{"Type":"local","Attrs":
        {"src":"/c","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}}]"#;

    #[test]
    fn caches_are_known_or_refused() {
        let add = |kind: &str, pairs: &[(&str, &str)]| {
            let mut to = CacheTo::default();
            to.add(kind, &attributes(pairs).0).map(|()| to)
        };
        assert!(add("inline", &[]).unwrap().inline);
        let local = add("local", &[("dest", "/c"), ("mode", "max"), ("tag", "x")]).unwrap();
        let place = CachePlace::Directory("/c".into());
        let usual = CacheForm {
            packing: Packing::default(),
            force: false,
            oci_types: true,
            is_manifest: true,
        };
        let own = CacheExport { place, max: true, ignore_error: false, form: usual };
        assert_eq!(local.exports, [own]);
        let registry = add(
            "registry",
            &[("ref", "r:5000/x:c"), ("ignore-error", "1"), ("registry.insecure", "true")],
        )
        .unwrap();
        let place = CachePlace::Registry(Reference::parse_normalized("r:5000/x:c").unwrap(), true);
        let own = CacheExport { place, max: false, ignore_error: true, form: usual };
        assert_eq!(registry.exports, [own]);
        let plain = [
            ("dest", "/c"),
            ("compression", "zstd"),
            ("compression-level", "3"),
            ("force-compression", "true"),
            ("oci-mediatypes", "false"),
        ];
        let packing = Packing { compression: Compression::Zstd, level: Some(3) };
        let form = CacheForm { packing, force: true, oci_types: false, is_manifest: false };
        assert_eq!(add("local", &plain).unwrap().exports[0].form, form);
        for (kind, pairs, message) in [
            ("registry", &[][..], "registry cache exporter requires ref"),
            ("registry", &[("ref", "Ab")], "invalid reference"),
            (
                "registry",
                &[("ref", "x"), ("compression", "lz4")],
                "unsupported compression type lz4",
            ),
            ("registry", &[("ref", "x"), ("tag", "y")], "tag=y of a registry cache"),
            ("gha", &[], "unknown cache exporter: \"gha\""),
            ("local", &[], "requires dest"),
            ("local", &[("dest", "/c"), ("mode", "most")], "unknown cache mode"),
            (
                "local",
                &[("dest", "/c"), ("image-manifest", "true"), ("oci-mediatypes", "false")],
                "OCI mediatypes are required for image-manifest cache format",
            ),
        ] {
            let error = add(kind, pairs).unwrap_err();
            assert!(error.message().contains(message), "{kind} {pairs:?}: {error}");
        }
        let plain =
            r#"[{"Type":"registry","Attrs":{"ref":"r:5000/x","registry.insecure":"true"}}]"#;
        let from = attributes(&[("cache-imports", plain)]).cache_from().unwrap();
        assert_eq!((from.insecure, from.images.len()), (vec!["r:5000/x".to_owned()], 1));
        for imports in [
            r#"[{"Type":"registry","Attrs":{"ref":"x","registry.insecure":"perhaps"}}]"#,
            r#"[{"Type":"s3"}]"#,
            r#"[{"Type":"local","Attrs":{"src":"/c"}}]"#,
            r#"[{"Type":"local","Attrs":{"src":"/c","digest":"x"}}]"#,
        ] {
            assert!(attributes(&[("cache-imports", imports)]).cache_from().is_err(), "{imports}");
        }
    }

    #[test]
    fn values_are_read_or_refused() {
        let given = attributes(&[
            ("add-hosts", "Db=10.0.0.1,\"v6=::1\""),
            ("ulimit", "nofile=10:20,core=0"),
            ("shm-size", "1048576"),
            ("no-cache", "a,b"),
            ("platform", "linux/amd64,linux/arm64"),
            ("cache-imports", IMPORTS),
        ]);
        assert_eq!(given.extra_hosts().unwrap(), ["db:10.0.0.1", "v6:::1"]);
        let limits = given.limits().unwrap();
        assert_eq!((limits.shm_size, limits.ulimits.len()), (1_048_576, 2));
        assert_eq!((limits.ulimits[0].soft, limits.ulimits[0].hard), (10, 20));
        assert_eq!(given.no_cache(), (false, vec!["a".into(), "b".into()]));
        assert_eq!(given.platforms().unwrap().len(), 2);
        let from = given.cache_from().unwrap();
        assert_eq!((from.images, from.directories[0].0.as_str()), (vec!["x/y".into()], "/c"));
        for (name, value) in [
            ("add-hosts", "a"),
            ("add-hosts", "a=b"),
            ("add-hosts", "\"a=1.2.3.4"),
            ("ulimit", "nofile"),
            ("ulimit", "nofile=x"),
            ("shm-size", "much"),
            ("memory", "1g"),
            ("platform", "a/b/c/d"),
            ("force-network-mode", "bridge"),
            ("cache-imports", "{"),
            ("build-arg:SOURCE_DATE_EPOCH", "now"),
            ("multi-platform", "perhaps"),
        ] {
            let given = attributes(&[(name, value)]);
            let refused = given.extra_hosts().is_err()
                || given.limits().is_err()
                || given.platforms().is_err()
                || given.network().is_err()
                || given.cache_from().is_err()
                || given.source_date_epoch().is_err()
                || given.multi_platform().is_err();
            assert!(refused, "{name}={value}");
        }
    }
}
