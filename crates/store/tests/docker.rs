//! Exchange with a real dockerd, where one is named: `SILO_TEST_DOCKER_HOST=unix:///...`.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::process::Command;

use silo_store::{SaveImage, Store};

#[test]
#[ignore = "needs a dockerd and an image archive: SILO_TEST_DOCKER_HOST, SILO_TEST_ARCHIVE"]
fn dockerd_loads_what_we_save() {
    let host = std::env::var("SILO_TEST_DOCKER_HOST").unwrap();
    let archive = std::env::var("SILO_TEST_ARCHIVE").unwrap();
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let file = fs_err::File::open(archive).unwrap();
    let loaded = store.load(file, &mut |_| {}).unwrap();
    let images: Vec<SaveImage> = loaded
        .images
        .iter()
        .map(|image| SaveImage {
            id: image.id,
            names: vec!["silo-test/saved:1".into()],
            index: None,
        })
        .collect();
    let path = directory.path().join("saved.tar");
    store.save(&images[..1], fs_err::File::create(&path).unwrap()).unwrap();
    let docker = |arguments: &[&str]| {
        let output = Command::new("docker").env("DOCKER_HOST", &host).args(arguments).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    docker(&["load", "-q", "-i", path.to_str().unwrap()]);
    let format = "{{.Id}} {{.Size}}";
    let shown = docker(&["image", "inspect", "--format", format, "silo-test/saved:1"]);
    docker(&["rmi", "silo-test/saved:1"]);
    let image = &loaded.images[0];
    assert_eq!(shown, format!("{} {}", image.id, image.image.size()));
}
