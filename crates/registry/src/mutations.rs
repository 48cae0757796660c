//! What servers and administrators write, mangled: nothing panics, nothing is made up.

use bytes::Bytes;
use silo_oci::image::{digest, media};

use crate::{challenge, hosts, link, manifest};

/// Inputs that are tried of each sort.
const TRIES: usize = 4000;

/// Numbers that only look random.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap_or(0) % below.max(1)
    }

    /// Some of the bytes changed, left out, doubled, or exchanged for those of another.
    fn mangle(&mut self, text: &str, other: &str) -> String {
        const ODD: &[&str] =
            &["\"", "\\", "<", ">", "=", ",", ";", " ", "\0", "é", "[", "{", "@", "-1", "9e999"];
        let mut text = text.to_owned();
        for _ in 0..=self.roll(4) {
            let characters: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
            let at = characters.get(self.roll(characters.len())).copied().unwrap_or(0);
            match self.roll(5) {
                0 => text.truncate(at),
                1 => text.insert_str(at, ODD[self.roll(ODD.len())]),
                2 if !text.is_empty() => drop(text.remove(at)),
                3 => {
                    let rest = text.split_off(at);
                    text.push_str(&rest);
                    text.push_str(&rest);
                }
                _ => {
                    let from = self.roll(other.len());
                    text.insert_str(at, other.get(from..).unwrap_or_default());
                }
            }
            text.truncate(text.char_indices().map(|(at, _)| at).nth(4000).unwrap_or(text.len()));
        }
        text
    }
}

fn each(samples: &[&str], check: impl Fn(&str)) {
    each_of(TRIES, samples, check);
}

fn each_of(tries: usize, samples: &[&str], check: impl Fn(&str)) {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for sample in samples {
        check(sample);
    }
    for _ in 0..tries {
        let (one, other) = (dice.roll(samples.len()), dice.roll(samples.len()));
        check(&dice.mangle(samples[one], samples[other]));
    }
}

#[test]
fn challenges() {
    let samples = [
        r#"Bearer realm="https://auth.example/token",service="s",scope="repository:a:pull,push""#,
        r#"Basic realm="b\"c", Negotiate, Bearer error="invalid_token" realm=x"#,
    ];
    each(&samples, |header| {
        let found = challenge::parse(header);
        let length: usize = found
            .iter()
            .flat_map(|challenge| &challenge.parameters)
            .map(|(name, value)| name.len() + value.len())
            .sum();
        assert!(length <= header.len(), "{header:?}: {found:?}");
    });
}

#[test]
fn links() {
    let samples = [
        r#"</v2/a/tags/list?last=b&n=2>; rel="next""#,
        r#"</a>; rel="prev", </b>; rel="last next"; title="x""#,
    ];
    each(&samples, |header| {
        if let Some(next) = link::next(header) {
            assert!(header.contains(next), "{header:?}: {next:?}");
        }
    });
}

#[test]
fn documents() {
    let hash = digest(b"");
    let entry = |kind: &str| format!(r#"{{"mediaType":"{kind}","digest":"{hash}","size":7}}"#);
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}],"annotations":{{"a":"b"}}}}"#,
        media::OCI_MANIFEST,
        entry(media::OCI_CONFIG),
        entry(media::OCI_LAYER_GZIP)
    );
    let index = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[{}]}}"#,
        media::OCI_INDEX,
        entry(media::OCI_MANIFEST)
    );
    each(&[&manifest, &index], |text| {
        for kind in [media::OCI_MANIFEST, media::OCI_INDEX, ""] {
            let bytes = Bytes::copy_from_slice(text.as_bytes());
            let own = digest(&bytes);
            let Ok(Some(found)) = manifest::read(kind, bytes, own) else { continue };
            assert_eq!((found.descriptor.digest, found.descriptor.size), (own, text.len() as u64));
            let said = &found.descriptor.media_type;
            assert!(kind.is_empty() || kind == said, "{kind} {said}: {text}");
        }
    });
}

#[test]
fn files_of_hosts() {
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().join("r");
    fs_err::create_dir(&folder).unwrap();
    let samples = [
        "server = \"https://r\"\n[host.\"https://m/v2\"]\ncapabilities = [\"pull\", \"resolve\"]\n",
        "[host.\"http://m\"]\nskip_verify = true\nca = [\"a\", \"b\"]\nclient = [[\"c\", \"k\"]]\n",
        "[host.\"https://m\".header]\nx-a = [\"b\"]\nx-c = \"d\"\n",
    ];
    // A parser that is slow without optimization, and a file each time.
    each_of(TRIES / 20, &samples, |text| {
        fs_err::write(folder.join("hosts.toml"), text).unwrap();
        let directories = [directory.path().to_owned()];
        let Ok(Some(found)) = hosts::endpoints(&directories, "r", "https://r", false) else {
            return;
        };
        for endpoint in found {
            let has_scheme =
                ["http://", "https://"].map(|scheme| endpoint.base.starts_with(scheme));
            assert!(has_scheme.contains(&true), "{text}: {endpoint:?}");
            assert!(!endpoint.authority.contains(['@', '/']), "{text}: {endpoint:?}");
        }
    });
}
