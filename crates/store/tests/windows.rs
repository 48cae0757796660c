//! Windows images: loaded, put together for a drive C:, and written again bit for bit.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::io::{Cursor, Read as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};
use silo_archive::{Entry, EntryKind, Reader, Writer, compress};
use silo_oci::image::ImageConfig;
use silo_store::{Error, SaveImage, Store};
use silo_types::Digest;
use silo_winlayer::header::{DIRECTORY, HARD_LINK, Header, REGULAR, SYMLINK};

fn sha(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

/// A layer as Microsoft's exporter writes it.
#[derive(Default)]
struct Layer(Vec<u8>);

impl Layer {
    fn put(mut self, mut header: Header, attributes: u32, data: &[u8]) -> Self {
        header.size = data.len() as u64;
        header.mtime.seconds = 1_700_000_000;
        header.mtime.nanos = 123_456_700;
        header.set("MSWINDOWS.fileattr", attributes.to_string());
        header.encode(&mut self.0).unwrap();
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }
    fn dir(self, name: &str) -> Self {
        self.put(Header::new(DIRECTORY, name), 0x10, b"")
    }
    fn file(self, name: &str, data: &[u8]) -> Self {
        self.put(Header::new(REGULAR, name), 0x20, data)
    }
    fn link(self, name: &str, target: &str) -> Self {
        let mut header = Header::new(SYMLINK, name);
        header.link = target.into();
        self.put(header, 0x410, b"")
    }
    fn hard_link(self, name: &str, target: &str) -> Self {
        let mut header = Header::new(HARD_LINK, name);
        header.link = target.into();
        self.put(header, 0x20, b"")
    }
    fn whiteout(mut self, name: &str) -> Self {
        Header::new(REGULAR, name).encode(&mut self.0).unwrap();
        self
    }
    fn done(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

fn archive(layers: &[Vec<u8>]) -> Vec<u8> {
    let mut config = ImageConfig { os: "windows".into(), ..ImageConfig::default() };
    config.architecture = "amd64".into();
    config.rootfs.diff_ids = layers.iter().map(|layer| sha(layer)).collect();
    let config = config.to_bytes();
    let mut tar = Writer::new(Vec::new());
    let mut file = |path: &str, data: &[u8]| {
        let mut entry = Entry::new(EntryKind::Regular, path, 0o644);
        entry.size = data.len() as u64;
        tar.append(&entry, &mut &data[..]).unwrap();
    };
    let mut paths = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        file(&format!("{index}/layer.tar"), layer);
        paths.push(format!("\"{index}/layer.tar\""));
    }
    let id = sha(&config).hex();
    file(&format!("{id}.json"), &config);
    let manifest = format!(
        r#"[{{"Config":"{id}.json","RepoTags":["win:1"],"Layers":[{}]}}]"#,
        paths.join(",")
    );
    file("manifest.json", manifest.as_bytes());
    tar.finish().unwrap()
}

fn load(store: &Store, layers: &[Vec<u8>]) -> Result<(silo_store::Loaded, Digest), Error> {
    let loaded = store.load(Cursor::new(archive(layers)), &mut |_| {})?;
    let top = loaded.images[0].image.top().unwrap();
    Ok((loaded, top))
}

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

fn read(path: impl AsRef<Path>) -> String {
    fs_err::read_to_string(path.as_ref()).unwrap()
}

fn names(path: impl AsRef<Path>) -> Vec<String> {
    let entries = fs_err::read_dir(path.as_ref()).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
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
    let image = SaveImage { id: loaded.images[0].id, names: vec!["win:1".into()] };
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
        assert!(matches!(store.windows_layers(&top), Err(Error::Entry { .. })));
        assert_eq!(names(directory.path().join("layers")), [top.hex()]);
        assert!(!directory.path().join("layers").join(top.hex()).join("windows").exists());
    }
}
