//! Types of layers and documents, of OCI and of Docker.

use silo_archive::compress::Compression;
use silo_oci::image::{Manifest, media};

use crate::Error;

/// OCI's types, and what Docker calls the same.
const PAIRS: [(&str, &str); 4] = [
    (media::OCI_MANIFEST, media::DOCKER_MANIFEST),
    (media::OCI_CONFIG, media::DOCKER_CONFIG),
    (media::OCI_LAYER, media::DOCKER_LAYER),
    (media::OCI_LAYER_GZIP, media::DOCKER_LAYER_GZIP),
];

/// OCI's or Docker's type for the same; `None` where it is that already, or there is none.
pub fn same_type(media_type: &str, oci: bool) -> Option<&'static str> {
    PAIRS.iter().find_map(|(theirs, docker)| {
        let (from, to) = if oci { (docker, theirs) } else { (theirs, docker) };
        (media_type == *from).then_some(*to)
    })
}

/// OCI's type of layers in a compression.
pub fn layer_type(compression: Compression) -> &'static str {
    match compression {
        Compression::Gzip => media::OCI_LAYER_GZIP,
        Compression::Zstd => media::OCI_LAYER_ZSTD,
        _ => media::OCI_LAYER,
    }
}

/// Gives a manifest, and what it names, OCI's types or Docker's. Types that are neither stay.
pub fn change(manifest: &mut Manifest, oci: bool) -> Result<(), Error> {
    let own = if oci { media::OCI_MANIFEST } else { media::DOCKER_MANIFEST };
    own.clone_into(&mut manifest.media_type);
    for blob in std::iter::once(&mut manifest.config).chain(&mut manifest.layers) {
        if !oci && blob.media_type == media::OCI_LAYER_ZSTD {
            return Err(Error::MediaType("zstd, which Docker has no type of layers for".into()));
        }
        if let Some(new) = same_type(&blob.media_type, oci) {
            new.clone_into(&mut blob.media_type);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use silo_oci::image::Descriptor;

    use super::*;

    fn manifest(config: &str, layers: &[&str]) -> Manifest {
        let digest = silo_oci::image::digest(b"x");
        let blob = |media_type: &str| {
            serde_json::to_value(Descriptor::new(media_type, digest, 1)).unwrap()
        };
        let layers: Vec<_> = layers.iter().map(|media_type| blob(media_type)).collect();
        let manifest =
            serde_json::json!({"schemaVersion": 2, "config": blob(config), "layers": layers});
        Manifest::parse(manifest.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn types_change_and_change_back() {
        let layers = [media::OCI_LAYER, media::OCI_LAYER_GZIP, media::DOCKER_FOREIGN];
        let mut changed = manifest(media::OCI_CONFIG, &layers);
        change(&mut changed, false).unwrap();
        assert_eq!(changed.media_type, media::DOCKER_MANIFEST);
        assert_eq!(changed.config.media_type, media::DOCKER_CONFIG);
        let types: Vec<_> = changed.layers.iter().map(|layer| layer.media_type.as_str()).collect();
        assert_eq!(types, [media::DOCKER_LAYER, media::DOCKER_LAYER_GZIP, media::DOCKER_FOREIGN]);
        for (layer, expected) in types.iter().zip([Compression::None, Compression::Gzip]) {
            assert_eq!(Compression::of_media_type(layer), expected);
        }
        change(&mut changed, true).unwrap();
        let types: Vec<_> = changed.layers.iter().map(|layer| layer.media_type.as_str()).collect();
        assert_eq!(types, layers);
        let mut zstd = manifest(media::OCI_CONFIG, &[layer_type(Compression::Zstd)]);
        assert!(change(&mut zstd, false).is_err());
        change(&mut zstd, true).unwrap();
    }
}
