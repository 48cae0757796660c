//! Changes on a drive C: become a Windows layer.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

mod layers;

use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use fs_err as fs;
use silo_archive::Reader;
use silo_oci::image::ImageConfig;
use silo_store::{Image, Lease, SaveImage, Store, WindowsChanges};
use silo_types::Digest;
use silo_winlayer::header::{DIRECTORY, Header, REGULAR};
use silo_winlayer::{EntryKind, FileAttributes, LayerReader, descriptor};

use layers::{Layer, load, names, read};

/// A drive, mounted.
struct Drive(PathBuf);

impl Drive {
    fn mount(store: &Store, snapshot: &str, chain: &Digest, at: &Path) -> Self {
        let snapshot = store.snapshot(snapshot).unwrap();
        let layers = store.windows_layers(chain).unwrap();
        let lowers: Vec<_> =
            layers.iter().rev().map(|layer| layer.files.display().to_string()).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},redirect_dir=on,metacopy=off,index=off",
            lowers.join(":"),
            snapshot.upper.display(),
            snapshot.work.display()
        );
        fs::create_dir_all(at).unwrap();
        let done = Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(at)
            .output()
            .unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        Self(at.to_owned())
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(&self.0).status();
        assert!(status.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

struct Bench {
    store: Store,
    directory: tempfile::TempDir,
    chain: Digest,
    count: usize,
    leases: Vec<Lease>,
}

impl Bench {
    fn new(layers: &[Vec<u8>]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(directory.path().join("store")).unwrap();
        let (loaded, chain) = load(&store, layers).unwrap();
        Self { store, directory, chain, count: 0, leases: vec![loaded.lease] }
    }

    fn change(&mut self, change: impl FnOnce(&Path)) -> String {
        self.count += 1;
        let name = format!("c{}", self.count);
        self.store.snapshot_create(&name, Some(self.chain)).unwrap();
        let at = self.directory.path().join("mnt");
        let drive = Drive::mount(&self.store, &name, &self.chain, &at);
        change(&at);
        drop(drive);
        name
    }

    fn commit(&mut self, snapshot: &str, more: &WindowsChanges) -> Image {
        let config = ImageConfig {
            os: "windows".into(),
            architecture: "amd64".into(),
            os_version: "10.0.17763.1".into(),
            ..ImageConfig::default()
        };
        let (image, lease) = self.store.commit_windows(snapshot, more, config).unwrap();
        self.leases.push(lease);
        image
    }

    fn tar(&self, image: &Image) -> Vec<u8> {
        let mut out = Vec::new();
        let names = vec!["win:2".to_owned()];
        self.store.save(&[SaveImage { id: image.id, names, index: None }], &mut out).unwrap();
        let mut reader = Reader::new(&out[..]);
        let mut found = Vec::new();
        let wanted = image.config.rootfs.diff_ids.last().copied().unwrap();
        while reader.next_entry().unwrap().is_some() {
            let mut data = Vec::new();
            reader.read_to_end(&mut data).unwrap();
            if layers::sha(&data) == wanted {
                found = data;
            }
        }
        assert!(!found.is_empty());
        found
    }

    fn listing(&self, image: &Image) -> Vec<String> {
        let tar = self.tar(image);
        let mut reader = LayerReader::new(&tar[..]);
        let mut names = Vec::new();
        while let Some(item) = reader.next_item().unwrap() {
            assert_eq!(item.record.raw(), None, "as Go writes it");
            assert!(item.meaning.findings.is_empty(), "{:?}", item.meaning.findings);
            names.push(String::from_utf8(item.record.header().name.clone()).unwrap());
        }
        names
    }

    fn header(&self, image: &Image, name: &str) -> Header {
        let tar = self.tar(image);
        let mut reader = LayerReader::new(&tar[..]);
        while let Some(item) = reader.next_item().unwrap() {
            if item.record.header().name == name.as_bytes() {
                return item.record.header().clone();
            }
        }
        panic!("no {name}");
    }

    /// Looks at the drive of the layers so far.
    fn look(&mut self, look: impl FnOnce(&Path)) {
        let name = self.change(look);
        self.store.snapshot_remove(&name).unwrap();
    }
}

fn base() -> Vec<u8> {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let mut secured = Header::new(REGULAR, "Files/Windows/secured.txt");
    secured.set("MSWINDOWS.rawsd", STANDARD.encode(descriptor::default_file()));
    secured.set("LIBARCHIVE.creationtime", "1500000000.5");
    let mut windows = Header::new(DIRECTORY, "Files/Windows");
    windows.set("MSWINDOWS.rawsd", STANDARD.encode(descriptor::default_directory()));
    Layer::default()
        .dir("Files")
        .put(windows, 0x11, b"")
        .put(secured, 0x2022, b"secret")
        .file("Files/Windows/kept.txt", b"kept")
        .file("Files/Windows/kept.txt:Zone.Identifier", b"zone")
        .file("Files/Windows/owner.txt", b"owner")
        .file("Files/Windows/owner.txt:a", b"stream a")
        .file("Files/Windows/owner.txt:b", b"stream b")
        .dir("Files/Old")
        .file("Files/Old/one.txt", b"one")
        .dir("Files/Old/Deep")
        .file("Files/Old/Deep/two.txt", b"two")
        .file("Files/Old/Deep/three.txt", b"three")
        .link("Files/Old/link", "C:\\Windows\\kept.txt")
        .dir("Files/Gone")
        .file("Files/Gone/x", b"x")
        .dir("Files/Gone/Sub")
        .file("Files/Gone/Sub/y", b"y")
        .file("Files/Twin.txt", b"twin")
        .done()
}

#[test]
fn changes_of_every_kind() {
    let mut bench = Bench::new(&[base()]);
    let name = bench.change(|c| {
        fs::write(c.join("Windows/secured.txt"), "changed").unwrap();
        fs::write(c.join("Windows/kept.txt"), "more").unwrap();
        fs::remove_file(c.join("Windows/owner.txt:a")).unwrap();
        fs::create_dir(c.join("New")).unwrap();
        fs::write(c.join("New/a.txt"), "a").unwrap();
        fs::hard_link(c.join("New/a.txt"), c.join("New/b.txt")).unwrap();
        fs::write(c.join("New/a.txt:s"), "stream").unwrap();
        symlink("../Windows/kept.txt", c.join("New/link")).unwrap();
        fs::remove_dir_all(c.join("Gone")).unwrap();
        fs::create_dir_all(c.join("Gone/sub")).unwrap();
        // Spelled otherwise, and after what was removed.
        fs::remove_file(c.join("Twin.txt")).unwrap();
        fs::write(c.join("twin.TXT"), "again").unwrap();
        fs::rename(c.join("Old"), c.join("Moved")).unwrap();
        fs::remove_file(c.join("Moved/Deep/two.txt")).unwrap();
        fs::write(c.join("Moved/Deep/four.txt"), "four").unwrap();
        fs::rename(c.join("Moved/Deep"), c.join("New/Deep")).unwrap();
    });
    let more = WindowsChanges {
        hives: vec![("Software_Delta".into(), b"regf software".to_vec())],
        files: vec![("users/me/NTUSER.DAT".into(), b"regf user".to_vec())],
    };
    let image = bench.commit(&name, &more);
    assert_eq!(image.config.os_version, "10.0.17763.1");
    assert_eq!(
        bench.listing(&image),
        [
            "Files",
            "Files/.wh.Old",
            "Files/Gone",
            "Files/Gone/.wh.x",
            "Files/Gone/sub",
            "Files/Gone/sub/.wh.y",
            "Files/Moved",
            "Files/Moved/link",
            "Files/Moved/one.txt",
            "Files/New",
            "Files/New/a.txt",
            "Files/New/a.txt:s",
            "Files/New/b.txt",
            "Files/New/Deep",
            "Files/New/Deep/four.txt",
            "Files/New/Deep/three.txt",
            "Files/New/link",
            "Files/twin.TXT",
            "Files/users",
            "Files/users/me",
            "Files/users/me/NTUSER.DAT",
            "Files/Windows",
            "Files/Windows/kept.txt",
            "Files/Windows/kept.txt:Zone.Identifier",
            "Files/Windows/owner.txt",
            "Files/Windows/owner.txt:b",
            "Files/Windows/secured.txt",
            "Hives",
            "Hives/Software_Delta",
        ]
    );
    let secured = bench.header(&image, "Files/Windows/secured.txt");
    let record = |header: &Header, key: &str| {
        header.record(key).map(|value| String::from_utf8(value.to_vec()).unwrap())
    };
    assert_eq!(record(&secured, "MSWINDOWS.fileattr").unwrap(), 0x2022.to_string());
    assert!(record(&secured, "MSWINDOWS.rawsd").is_some());
    assert_eq!(record(&secured, "LIBARCHIVE.creationtime").unwrap(), "1500000000.5");
    assert_eq!((secured.mode, secured.uid), (0o100_000, 0));
    let windows = bench.header(&image, "Files/Windows");
    assert_eq!(record(&windows, "MSWINDOWS.fileattr").unwrap(), 0x11.to_string());
    let link = bench.header(&image, "Files/Moved/link");
    assert_eq!(link.link, b"C:\\Windows\\kept.txt", "as it was written");
    assert_eq!(bench.header(&image, "Files/New/b.txt").link, b"Files/New/a.txt");

    // The same again, and the same bytes.
    let again = bench.commit(&name, &more);
    assert_eq!(again.chain, image.chain);

    bench.chain = image.top().unwrap();
    bench.look(|c| {
        assert_eq!(names(c), ["Gone", "Moved", "New", "Twin.txt", "Windows", "users"]);
        assert_eq!(names(c.join("Gone")), ["Sub"]);
        assert_eq!(names(c.join("Gone/Sub")), [""; 0]);
        assert_eq!(names(c.join("Moved")), ["link", "one.txt"]);
        assert_eq!(names(c.join("New/Deep")), ["four.txt", "three.txt"]);
        assert_eq!(read(c.join("New/Deep/three.txt")), "three");
        assert_eq!(read(c.join("New/b.txt")), "a");
        assert_eq!(read(c.join("New/link")), "more");
        assert_eq!(read(c.join("Twin.txt")), "again");
        assert_eq!(read(c.join("users/me/NTUSER.DAT")), "regf user");
        assert_eq!(
            names(c.join("Windows")),
            ["kept.txt", "kept.txt:Zone.Identifier", "owner.txt", "owner.txt:b", "secured.txt"]
        );
        assert_eq!(read(c.join("Windows/owner.txt:b")), "stream b");
    });
    let layer = bench.store.windows_layers(&bench.chain).unwrap().pop().unwrap();
    assert_eq!(read(layer.hives.join("Software_Delta")), "regf software");
    assert_eq!(read(&layer.left_out), "");
}

#[test]
fn three_layers() {
    let mut bench = Bench::new(&[base()]);
    let none = WindowsChanges::default();
    let first = bench.change(|c| {
        fs::create_dir(c.join("App")).unwrap();
        fs::write(c.join("App/one"), "1").unwrap();
        fs::write(c.join("App/two"), "2").unwrap();
    });
    bench.chain = bench.commit(&first, &none).top().unwrap();
    let second = bench.change(|c| {
        fs::remove_file(c.join("App/one")).unwrap();
        fs::rename(c.join("App"), c.join("Program")).unwrap();
        fs::remove_file(c.join("Old/Deep/two.txt")).unwrap();
    });
    let image = bench.commit(&second, &none);
    assert_eq!(
        bench.listing(&image),
        [
            "Files",
            "Files/.wh.App",
            "Files/Old",
            "Files/Old/Deep",
            "Files/Old/Deep/.wh.two.txt",
            "Files/Program",
            "Files/Program/two",
            "Hives"
        ]
    );
    bench.chain = image.top().unwrap();
    let third = bench.change(|c| {
        assert_eq!(names(c.join("Program")), ["two"]);
        fs::remove_dir_all(c.join("Program")).unwrap();
        fs::create_dir(c.join("App")).unwrap();
    });
    let image = bench.commit(&third, &none);
    assert_eq!(bench.listing(&image), ["Files", "Files/.wh.Program", "Files/App", "Hives"]);
    bench.chain = image.top().unwrap();
    bench.look(|c| {
        assert_eq!(names(c), ["App", "Gone", "Old", "Twin.txt", "Windows"]);
        assert_eq!(names(c.join("App")), [""; 0]);
        assert_eq!(names(c.join("Old/Deep")), ["three.txt"]);
    });
    // Nothing changed.
    let idle = bench.change(|_| {});
    let image = bench.commit(&idle, &none);
    assert_eq!(bench.listing(&image), ["Files", "Hives"]);
}

#[test]
fn what_layers_cannot_hold_is_left_out() {
    let mut bench = Bench::new(&[base()]);
    let name = bench.change(|c| {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            c.join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap();
        fs::write(c.join("NUL"), "a device").unwrap();
        symlink("/etc/passwd", c.join("out")).unwrap();
        fs::write(c.join("fine"), "x").unwrap();
    });
    let bad = WindowsChanges { hives: vec![("Other".into(), Vec::new())], files: Vec::new() };
    assert!(bench.store.commit_windows(&name, &bad, ImageConfig::default()).is_err());
    let image = bench.commit(&name, &WindowsChanges::default());
    assert_eq!(bench.listing(&image), ["Files", "Files/fine", "Hives"]);
    let tar = bench.tar(&image);
    let mut reader = LayerReader::new(&tar[..]);
    while let Some(item) = reader.next_item().unwrap() {
        let entry = item.meaning.entry.unwrap();
        let is_directory = entry.kind == EntryKind::Directory;
        assert_eq!(entry.effective_attributes().contains(FileAttributes::DIRECTORY), is_directory);
    }
}
