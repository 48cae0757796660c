//! Windows images: loaded, put together for a drive C:, and written again bit for bit.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod layers;

use std::io::Read as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use silo_archive::{Reader, compress};
use silo_store::{Error, SaveImage, Store};
use silo_winlayer::header::{Header, REGULAR};

use layers::{Layer, load, names, read, sha};

fn base() -> Vec<u8> {
    Layer::default()
        .dir("Files")
        .dir("Files/Windows")
        .dir("Files/Windows/System32")
        .file("Files/Windows/System32/cmd.exe", b"MZ cmd")
        .file("Files/Windows/old.txt", b"old")
        .file("Files/Windows/old.txt:Zone.Identifier", b"zone")
        .link("Files/Link", "C:\\WINDOWS\\system32")
        .link("Files/Out", "Z:\\etc")
        .done()
}

fn upper() -> Vec<u8> {
    Layer::default()
        .dir("Files")
        .dir("Files/windows")
        .whiteout("Files/windows/.wh.OLD.txt")
        .put(Header::new(REGULAR, "Files/windows/new.txt"), 0x27, b"new")
        .file("Files/NUL", b"a device")
        .dir("Files/windows/SYSTEM32")
        .hard_link("Files/windows/SYSTEM32/copy.exe", "Files/Windows/System32/cmd.exe")
        .hard_link("Files/windows/SYSTEM32/same.txt", "Files/windows/new.txt")
        .dir("Hives")
        .file("Hives/System_Delta", b"regf")
        .done()
}

#[test]
fn a_drive() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let (_loaded, top) = load(&store, &[base(), upper()]).unwrap();
    let layers = store.windows_layers(&top).unwrap();
    let [low, high] = &layers[..] else { panic!("{layers:?}") };

    assert_eq!(names(&low.files), ["Link", "Windows"]);
    assert_eq!(read(low.files.join("Link/cmd.exe")), "MZ cmd");
    let target = fs_err::read_link(low.files.join("Link")).unwrap();
    assert_eq!(target, Path::new("Windows/System32"));
    assert_eq!(
        names(low.files.join("Windows")),
        ["System32", "old.txt", "old.txt:Zone.Identifier"]
    );
    assert!(read(&low.left_out).contains("on drive Z:"));

    assert_eq!(names(&high.files), ["Windows"]);
    assert_eq!(
        names(high.files.join("Windows")),
        ["System32", "new.txt", "old.txt", "old.txt:Zone.Identifier"]
    );
    for hidden in ["Windows/old.txt", "Windows/old.txt:Zone.Identifier"] {
        let metadata = fs_err::symlink_metadata(high.files.join(hidden)).unwrap();
        assert!(metadata.file_type().is_char_device() && metadata.rdev() == 0, "{hidden}");
    }
    let new = high.files.join("Windows/new.txt");
    let metadata = fs_err::metadata(&new).unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o555);
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_700_000_000, 123_456_700));
    assert_eq!(read(high.files.join("Windows/System32/copy.exe")), "MZ cmd");
    assert_eq!(read(high.files.join("Windows/System32/same.txt")), "new");
    let mut value = [0; 16];
    match rustix::fs::getxattr(&new, "user.DOSATTRIB", &mut value[..]) {
        Ok(length) => assert_eq!(&value[..length], b"0x6"),
        Err(error) => println!("no user attributes here: {error}"),
    }
    assert_eq!(names(&high.hives), ["System_Delta"]);
    assert!(read(&high.left_out).contains("takes for a device"));

    // Made once, and the same after the store was opened again.
    let inode = fs_err::metadata(&high.files).unwrap().ino();
    assert_eq!(store.windows_layers(&top).unwrap(), layers);
    assert_eq!(fs_err::metadata(&high.files).unwrap().ino(), inode);
    // Made anew from the lower one's side record.
    fs_err::remove_dir_all(high.files.parent().unwrap()).unwrap();
    assert_eq!(store.windows_layers(&top).unwrap(), layers);
    assert_eq!(names(high.files.join("Windows/System32")), ["copy.exe", "same.txt"]);
}

#[test]
fn the_same_bytes_go_out() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../winlayer/tests/fixtures");
    let fixture = |name: &str| {
        let file = fs_err::File::open(fixtures.join(format!("{name}.tar.zst"))).unwrap();
        let (compression, input) = compress::detect(file).unwrap();
        let input = std::io::BufReader::new(input);
        let mut bytes = Vec::new();
        compress::decoder(compression, input).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    };
    let layers = vec![fixture("base"), fixture("exported"), fixture("built"), base(), upper()];
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let (loaded, top) = load(&store, &layers).unwrap();
    assert_eq!(store.windows_layers(&top).unwrap().len(), 5);
    let image = SaveImage { id: loaded.images[0].id, names: vec!["win:1".into()], index: None };
    let mut out = Vec::new();
    store.save(&[image], &mut out).unwrap();
    let mut found = Vec::new();
    let mut reader = Reader::new(&out[..]);
    while reader.next_entry().unwrap().is_some() {
        let mut data = Vec::new();
        reader.read_to_end(&mut data).unwrap();
        found.push(sha(&data));
    }
    for layer in &layers {
        assert!(found.contains(&sha(layer)));
    }
}

#[test]
fn what_is_refused_leaves_nothing_behind() {
    let twins = Layer::default().dir("Files").file("Files/a", b"").file("Files/A", b"").done();
    let beneath = Layer::default().dir("Files").link("Files/l", "x").file("Files/L/f", b"").done();
    let escape = Layer::default().file("Files/a\\..\\..\\b", b"").done();
    let stream = Layer::default().dir("Files").file("Files/C:/x", b"").done();
    for layer in [twins, beneath, escape, stream] {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path()).unwrap();
        let (_loaded, top) = load(&store, &[layer]).unwrap();
        assert!(matches!(store.windows_layers(&top), Err(Error::WindowsLayer { .. })));
        assert_eq!(names(directory.path().join("layers")), [top.hex()]);
        assert!(!directory.path().join("layers").join(top.hex()).join("windows").exists());
    }
}
