//! The documents of a cache: what they say, and what is refused.

use std::collections::{HashMap, HashSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use silo_oci::image::Descriptor;
use silo_types::{Digest, Error};

/// Media type of the configuration of a cache.
pub(crate) const CONFIG: &str = "application/vnd.buildkit.cacheconfig.v0";
/// Records of one cache.
const MAX_RECORDS: usize = 200_000;
/// Layers of one cache, and blobs of its manifest.
const MAX_LAYERS: usize = 50_000;
/// Further keys of one record.
const MAX_ALIASES: usize = 64;
/// Bytes of a description or the id of a mount.
const MAX_TEXT: usize = 64 << 10;
/// Copies of a cache mount that are used alone at once.
const MAX_NUMBER: u32 = 1024;

fn refused(reason: impl std::fmt::Display) -> Error {
    Error::invalid(format!("invalid build cache: {reason}"))
}

/// The configuration of a cache.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct CacheConfig {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) layers: Vec<CacheLayer>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) records: Vec<CacheRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) silo: Option<Extra>,
}

/// What only Silo has.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Extra {
    /// Configurations that builds came by.
    pub(crate) known: Vec<String>,
    /// Cache mounts.
    pub(crate) mounts: Vec<CacheMount>,
}

/// A layer upon another one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CacheLayer {
    pub(crate) blob: Digest,
    /// Index of what is beneath; -1 for nothing.
    #[serde(default)]
    pub(crate) parent: i64,
    #[serde(default)]
    pub(crate) annotations: LayerNotes,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct LayerNotes {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) media_type: String,
    /// Digest of the uncompressed tar.
    #[serde(rename = "diffID", skip_serializing_if = "Option::is_none")]
    pub(crate) diff_id: Option<Digest>,
    pub(crate) size: u64,
    pub(crate) created_at: String,
}

/// A step.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CacheRecord {
    /// The key, as a digest.
    pub(crate) digest: Digest,
    /// What is there after it; nothing for a step that left no files.
    #[serde(default, rename = "layers", skip_serializing_if = "Vec::is_empty")]
    pub(crate) results: Vec<CacheResult>,
    /// Of BuildKit's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) silo: Option<StepNotes>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CacheResult {
    /// Index of the layer on top.
    pub(crate) layer: i64,
    #[serde(default)]
    pub(crate) created_at: String,
}

/// What a record has besides.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct StepNotes {
    pub(crate) kind: String,
    pub(crate) description: String,
    /// Nanoseconds since 1970.
    pub(crate) created: i64,
    /// The step made the layer on top.
    pub(crate) changed: bool,
    /// Bytes of that layer's files.
    pub(crate) size: u64,
    /// Other keys.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) aliases: Vec<Digest>,
}

/// A cache mount.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CacheMount {
    pub(crate) id: String,
    /// Which of those that are used alone at once.
    #[serde(default)]
    pub(crate) number: u32,
    /// A tar of its files.
    pub(crate) blob: Digest,
    /// Owner and mode of its root.
    #[serde(default)]
    pub(crate) uid: u32,
    #[serde(default)]
    pub(crate) gid: u32,
    pub(crate) mode: u32,
}

/// A manifest, in either of BuildKit's forms.
#[derive(Debug, Default, Deserialize)]
struct Manifest {
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// The configuration that a manifest names, and its blobs.
pub(crate) fn manifest(bytes: &[u8]) -> Result<(Descriptor, HashMap<Digest, Descriptor>), Error> {
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(refused)?;
    if manifest.layers.len() + manifest.manifests.len() > MAX_LAYERS {
        return Err(refused("it has too many layers"));
    }
    let blobs = manifest.layers.iter().chain(&manifest.manifests);
    let blobs: HashMap<Digest, Descriptor> =
        blobs.map(|blob| (blob.digest, blob.clone())).collect();
    let mut config = manifest.config.into_iter().chain(manifest.manifests);
    let config = config.rfind(|config| config.media_type == CONFIG);
    Ok((config.ok_or_else(|| refused("its manifest is of something else"))?, blobs))
}

/// The hex form of a key; what is no digest of the right kind is no key.
pub(crate) fn key_of(digest: &Digest) -> String {
    digest.hex()
}

/// A key as a digest.
pub(crate) fn digest_of(key: &str) -> Option<Digest> {
    format!("sha256:{key}").parse().ok()
}

impl CacheConfig {
    /// Parses and checks a configuration.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let mut config: Self = serde_json::from_slice(bytes).map_err(refused)?;
        if config.layers.len() > MAX_LAYERS {
            return Err(refused("it has too many layers"));
        }
        check_records(&config.records, config.layers.len())?;
        config.sort_layers()?;
        let mut seen = HashSet::new();
        for mount in config.silo.iter().flat_map(|extra| &extra.mounts) {
            if mount.id.len() > MAX_TEXT || mount.id.is_empty() || mount.number >= MAX_NUMBER {
                return Err(refused("a cache mount cannot be named so"));
            }
            if !seen.insert((&mount.id, mount.number)) {
                return Err(refused(format!("cache mount {:?} is there twice", mount.id)));
            }
        }
        let known = config.silo.iter().flat_map(|extra| &extra.known);
        if known.clone().count() > MAX_RECORDS || known.clone().any(|key| digest_of(key).is_none())
        {
            return Err(refused("its list of configurations"));
        }
        Ok(config)
    }

    /// Puts every layer behind the one that it is upon: BuildKit sorts them by their digests.
    fn sort_layers(&mut self) -> Result<(), Error> {
        let mut above: Vec<Vec<usize>> = vec![Vec::new(); self.layers.len()];
        let mut order = Vec::with_capacity(self.layers.len());
        for (index, layer) in self.layers.iter().enumerate() {
            let parent = usize::try_from(layer.parent).ok();
            match parent.and_then(|parent| above.get_mut(parent)) {
                Some(above) => above.push(index),
                None if layer.parent == -1 => order.push(index),
                None => {
                    return Err(refused(format!("layer {index} is upon layer {}", layer.parent)));
                }
            }
        }
        let mut next = 0;
        while let Some(index) = order.get(next) {
            order.extend(above[*index].iter().copied());
            next += 1;
        }
        if order.len() < self.layers.len() {
            return Err(refused("its layers are upon each other"));
        }
        let mut places = vec![-1; order.len()];
        for (place, index) in (0..).zip(&order) {
            places[*index] = place;
        }
        let place = |index: i64| usize::try_from(index).map_or(-1, |index| places[index]);
        let moved = |index: &usize| {
            let layer = &self.layers[*index];
            CacheLayer { parent: place(layer.parent), ..layer.clone() }
        };
        let layers = order.iter().map(moved).collect();
        for result in self.records.iter_mut().flat_map(|record| &mut record.results) {
            result.layer = place(result.layer);
        }
        self.layers = layers;
        Ok(())
    }

    /// As a document.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        silo_oci::image::to_bytes(self)
    }

    /// Chain ids of the layers, in their order; none of those that do not say what they hold.
    pub(crate) fn chains(&self) -> Vec<Option<Digest>> {
        let mut chains: Vec<Option<Digest>> = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let chain = match (layer.annotations.diff_id, usize::try_from(layer.parent).ok()) {
                (None, _) => None,
                (Some(diff_id), None) => Some(diff_id),
                (Some(diff_id), Some(parent)) => {
                    let parent = chains.get(parent).copied().flatten();
                    parent.map(|parent| silo_oci::image::chain_id(Some(&parent), &diff_id))
                }
            };
            chains.push(chain);
        }
        chains
    }
}

/// Whether there are steps, but none that Silo made: others name them by keys of their own.
pub(crate) fn is_foreign(records: &[CacheRecord]) -> bool {
    !records.is_empty() && records.iter().all(|record| record.silo.is_none())
}

fn check_records(records: &[CacheRecord], layers: usize) -> Result<(), Error> {
    if records.len() > MAX_RECORDS {
        return Err(refused("it has too many records"));
    }
    for record in records {
        let is_there =
            |result: &CacheResult| usize::try_from(result.layer).is_ok_and(|index| index < layers);
        if !record.results.iter().all(is_there) {
            return Err(refused(format!("step {} leads to no layer", record.digest)));
        }
        if let Some(notes) = &record.silo
            && (notes.aliases.len() > MAX_ALIASES
                || notes.description.len() > MAX_TEXT
                || notes.kind.len() > MAX_TEXT)
        {
            return Err(refused(format!("step {} says too much", record.digest)));
        }
    }
    Ok(())
}

/// Records as an image has them.
pub(crate) fn to_inline(records: &[CacheRecord]) -> String {
    STANDARD.encode(silo_oci::image::to_bytes(&records))
}

/// The records in an image of so many layers.
pub(crate) fn from_inline(text: &str, layers: usize) -> Result<Vec<CacheRecord>, Error> {
    let bytes = STANDARD.decode(text).map_err(refused)?;
    let records: Vec<CacheRecord> = serde_json::from_slice(&bytes).map_err(refused)?;
    check_records(&records, layers)?;
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(byte: u8) -> Digest {
        Digest::from_sha256([byte; 32])
    }

    fn sample() -> CacheConfig {
        let layer = |blob, parent| CacheLayer {
            blob: digest(blob),
            parent,
            annotations: LayerNotes { diff_id: Some(digest(blob)), ..LayerNotes::default() },
        };
        CacheConfig {
            layers: vec![layer(1, -1), layer(2, 0), layer(3, 0)],
            records: vec![CacheRecord {
                digest: digest(9),
                results: vec![CacheResult { layer: 2, created_at: String::new() }],
                silo: Some(StepNotes { aliases: vec![digest(8)], ..StepNotes::default() }),
            }],
            silo: Some(Extra {
                known: vec![digest(7).hex()],
                mounts: vec![CacheMount {
                    id: "go".into(),
                    number: 0,
                    blob: digest(4),
                    uid: 0,
                    gid: 0,
                    mode: 0o755,
                }],
            }),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let config = sample();
        assert_eq!(CacheConfig::parse(&config.to_bytes()).unwrap(), config);
        let chains = config.chains();
        assert_eq!(chains[0], Some(digest(1)));
        assert_eq!(chains[2], Some(silo_oci::image::chain_id(Some(&digest(1)), &digest(3))));
        let text = to_inline(&config.records);
        assert_eq!(from_inline(&text, 3).unwrap(), config.records);
        assert!(from_inline(&text, 2).is_err(), "there is no third layer");
        // What BuildKit writes: no parent is the first layer, and members of its own.
        let other = format!(
            r#"{{"layers":[{{"blob":"{0}","parent":-1}},{{"blob":"{0}"}}],"records":[
               {{"digest":"{0}","layers":[{{"layer":1,"createdAt":"2024-01-01T00:00:00Z"}}],
                "inputs":[[{{"link":0}}]]}}]}}"#,
            digest(1)
        );
        let other = CacheConfig::parse(other.as_bytes()).unwrap();
        assert_eq!((other.layers[1].parent, &other.records[0].silo), (0, &None));
        assert_eq!(other.chains(), [None, None]);
        assert!(is_foreign(&other.records) && !is_foreign(&config.records) && !is_foreign(&[]));
    }

    #[test]
    fn layers_may_be_in_any_order() {
        let mut config = sample();
        let sorted = CacheConfig::parse(&config.to_bytes()).unwrap();
        // 3 upon 1, 1, 2 upon 1.
        config.layers = vec![
            CacheLayer { parent: 1, ..sorted.layers[2].clone() },
            sorted.layers[0].clone(),
            CacheLayer { parent: 1, ..sorted.layers[1].clone() },
        ];
        config.records[0].results[0].layer = 0;
        let parsed = CacheConfig::parse(&config.to_bytes()).unwrap();
        let top = usize::try_from(parsed.records[0].results[0].layer).unwrap();
        assert_eq!(parsed.layers[top].blob, digest(3));
        assert_eq!(parsed.chains()[top], sorted.chains()[2]);
        for (index, layer) in (0..).zip(&parsed.layers) {
            assert!(layer.parent < index, "{parsed:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        type Case = (&'static str, fn(&mut CacheConfig));
        let cases: [Case; 10] = [
            ("upon itself", |config| config.layers[1].parent = 1),
            ("upon each other", |config| config.layers[0].parent = 2),
            ("upon none", |config| config.layers[0].parent = 3),
            ("upon what cannot be", |config| config.layers[0].parent = -2),
            ("no such layer", |config| config.records[0].results[0].layer = 3),
            ("less than none", |config| config.records[0].results[0].layer = -1),
            ("long text", |config| {
                let notes = config.records[0].silo.as_mut().unwrap();
                notes.description = "x".repeat(MAX_TEXT + 1);
            }),
            ("mount without a name", |config| {
                config.silo.as_mut().unwrap().mounts[0].id.clear();
            }),
            ("mount twice", |config| {
                let mounts = &mut config.silo.as_mut().unwrap().mounts;
                mounts.push(mounts[0].clone());
            }),
            ("no key", |config| config.silo.as_mut().unwrap().known[0] = "../../x".into()),
        ];
        for (name, change) in cases {
            let mut config = sample();
            change(&mut config);
            let error = CacheConfig::parse(&config.to_bytes()).unwrap_err();
            assert!(error.message().starts_with("invalid build cache"), "{name}: {error}");
        }
        for text in ["", "7", "{\"layers\":[{\"blob\":\"md5:x\"}]}"] {
            assert!(CacheConfig::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(
            manifest(br#"{"config":{"mediaType":"application/x","digest":"sha256:00"}}"#).is_err()
        );
    }
}
