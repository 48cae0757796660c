//! Writer and reader together.

use std::collections::BTreeMap;
use std::path::Path;

use tokio::sync::oneshot;

use super::writer::LogWriter;
use super::{LogLine, ReadOptions, Stream, read};
use crate::config::{LogConfig, LogDriver};

fn config(dir: &Path, driver: LogDriver, options: &[(&str, &str)]) -> LogConfig {
    LogConfig {
        driver,
        options: options.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(),
        attrs: BTreeMap::new(),
        path: Some(dir.join("logs/x.log")),
    }
}

async fn all(config: &LogConfig, options: ReadOptions) -> Vec<LogLine> {
    let mut receiver = read(config, options, std::future::pending());
    let mut lines = Vec::new();
    while let Some(line) = receiver.recv().await {
        lines.push(line.unwrap());
    }
    lines
}

async fn texts(config: &LogConfig, options: ReadOptions) -> Vec<String> {
    let lines = all(config, options).await;
    lines.into_iter().map(|line| String::from_utf8(line.bytes).unwrap()).collect()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs_err::read_dir(dir.join("logs")).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

const DRIVERS: [LogDriver; 2] = [LogDriver::JsonFile, LogDriver::Local];

#[tokio::test]
async fn lines_come_back_from_every_file() {
    for driver in DRIVERS {
        for compress in ["true", "false"] {
            let dir = tempfile::tempdir().unwrap();
            let options = [("max-size", "1k"), ("max-file", "4"), ("compress", compress)];
            let config = config(dir.path(), driver, &options);
            let mut writer = LogWriter::open(&config).unwrap();
            // Enough that the oldest are gone.
            for number in 0..200 {
                writer.write(Stream::Stdout, format!("line {number}\n").as_bytes());
                while number < 190 && writer.has_work() {
                    writer.idle();
                }
            }
            assert!(writer.take_failure().is_none());
            let names = names(dir.path());
            assert_eq!(names.iter().any(|name| name.contains(".gz")), compress == "true");
            let lines = texts(&config, ReadOptions::default()).await;
            assert!(lines.len() > 20 && lines.len() < 200, "{}", lines.len());
            let first = 200 - lines.len();
            for (index, line) in lines.iter().enumerate() {
                assert_eq!(*line, format!("line {}\n", first + index), "{driver:?} {names:?}");
            }
            for tail in [0, 1, 2, 7, 15, 30, lines.len(), lines.len() + 1, 10_000] {
                let options = ReadOptions { tail: Some(tail), ..ReadOptions::default() };
                let wanted = &lines[lines.len() - tail.min(lines.len())..];
                assert_eq!(texts(&config, options).await, wanted, "{driver:?} {tail}");
            }
            // Reopening goes on where it ended.
            drop(writer);
            let mut writer = LogWriter::open(&config).unwrap();
            writer.write(Stream::Stderr, b"more\n");
            let last = all(&config, ReadOptions { tail: Some(1), ..ReadOptions::default() }).await;
            assert_eq!((last[0].stream, &last[0].bytes[..]), (Stream::Stderr, &b"more\n"[..]));
        }
    }
}

#[tokio::test]
async fn parts_of_lines_are_dockers() {
    for driver in DRIVERS {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), driver, &[]);
        let mut writer = LogWriter::open(&config).unwrap();
        let long = vec![b'a'; 40_000];
        for piece in long.chunks(7_777) {
            writer.write(Stream::Stdout, piece);
        }
        writer.write(Stream::Stdout, b"\n");
        // A line that fills a record exactly is followed by its newline alone.
        writer.write(Stream::Stderr, &[b'b'; 16_384]);
        writer.write(Stream::Stderr, b"\nshort\n\nrest");
        assert_eq!(writer.held(Stream::Stderr), b"rest");
        writer.end(Stream::Stderr);
        writer.end(Stream::Stdout);
        let lines = all(&config, ReadOptions::default()).await;
        let shape: Vec<_> = lines.iter().map(|l| (l.bytes.len(), l.partial)).collect();
        let wanted = [
            (16_384, true),
            (16_384, true),
            (7_233, false),
            (16_384, true),
            (1, false),
            (6, false),
            (1, false),
            (4, true),
        ];
        assert_eq!(shape, wanted, "{driver:?}");
        assert_eq!(lines[0].time, lines[2].time);
        assert!(lines[5].time >= lines[4].time);
    }
}

#[tokio::test]
async fn times_choose_lines() {
    for driver in DRIVERS {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), driver, &[]);
        let mut writer = LogWriter::open(&config).unwrap();
        for number in 0..10 {
            writer.write(Stream::Stdout, format!("{number}\n").as_bytes());
        }
        let times: Vec<_> =
            all(&config, ReadOptions::default()).await.iter().map(|line| line.time).collect();
        let options =
            ReadOptions { since: Some(times[3]), until: Some(times[6]), ..ReadOptions::default() };
        assert_eq!(texts(&config, options).await, ["3\n", "4\n", "5\n", "6\n"]);
    }
}

#[tokio::test]
async fn following_passes_through_rotation_to_the_end() {
    for driver in DRIVERS {
        for compress in ["true", "false"] {
            let dir = tempfile::tempdir().unwrap();
            let options = [("max-size", "3k"), ("max-file", "50"), ("compress", compress)];
            let config = config(dir.path(), driver, &options);
            let mut writer = LogWriter::open(&config).unwrap();
            writer.write(Stream::Stdout, b"0\n1\n");
            let (end, ended) = oneshot::channel();
            let options = ReadOptions { follow: true, tail: Some(1), ..ReadOptions::default() };
            let mut receiver = read(&config, options, async move {
                drop(ended.await);
            });
            // What the tail is shall not depend on how fast the reader is.
            assert_eq!(receiver.recv().await.unwrap().unwrap().bytes, b"1\n");
            let mut next = 2;
            let mut number = 2;
            // Sometimes the reader waits for the writer, sometimes it lags many files behind.
            for burst in [1, 1, 5, 40, 1, 300, 2, 900, 1] {
                for _ in 0..burst {
                    writer.write(Stream::Stdout, format!("{number}\n").as_bytes());
                    number += 1;
                    if number % 3 == 0 {
                        writer.idle();
                    }
                }
                if burst != 300 {
                    while next < number {
                        let line = receiver.recv().await.unwrap().unwrap();
                        assert_eq!(line.bytes, format!("{next}\n").as_bytes());
                        next += 1;
                    }
                }
            }
            writer.write(Stream::Stdout, b"last");
            writer.end(Stream::Stdout);
            end.send(()).unwrap();
            assert_eq!(receiver.recv().await.unwrap().unwrap().bytes, b"last");
            assert!(receiver.recv().await.is_none());
        }
    }
}

#[tokio::test]
async fn a_log_that_is_yet_to_come_can_be_followed() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), LogDriver::Local, &[]);
    assert!(texts(&config, ReadOptions::default()).await.is_empty());
    let options = ReadOptions { follow: true, ..ReadOptions::default() };
    let mut receiver = read(&config, options, std::future::pending());
    let mut writer = LogWriter::open(&config).unwrap();
    writer.write(Stream::Stdout, b"x\n");
    assert_eq!(receiver.recv().await.unwrap().unwrap().bytes, b"x\n");
}

#[tokio::test]
async fn followers_leave_when_nobody_listens() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), LogDriver::JsonFile, &[]);
    let mut writer = LogWriter::open(&config).unwrap();
    let (alive, gone) = oneshot::channel::<()>();
    let options = ReadOptions { follow: true, ..ReadOptions::default() };
    let mut receiver = read(&config, options, async move {
        let _alive = alive;
        std::future::pending::<()>().await;
    });
    writer.write(Stream::Stdout, b"x\n");
    receiver.recv().await.unwrap().unwrap();
    drop(receiver);
    assert!(gone.await.is_err());
}

#[tokio::test]
async fn damage_costs_only_what_it_hit() {
    // What a power cut leaves: a record cut short, or zeros in its place.
    for (driver, damage) in [
        (LogDriver::JsonFile, &b"{\"log\":\"half"[..]),
        (LogDriver::JsonFile, &[0; 100]),
        (LogDriver::JsonFile, b"null\n[]\n\n"),
        (LogDriver::Local, &[9, 0, 0, 0, 1]),
        (LogDriver::Local, &[0; 100]),
        (LogDriver::Local, &[255; 100]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), driver, &[]);
        let mut writer = LogWriter::open(&config).unwrap();
        writer.write(Stream::Stdout, b"before\n");
        drop(writer);
        let path = config.path.as_ref().unwrap();
        let mut bytes = fs_err::read(path).unwrap();
        bytes.extend(damage);
        fs_err::write(path, bytes).unwrap();
        assert_eq!(texts(&config, ReadOptions::default()).await, ["before\n"]);
        let mut writer = LogWriter::open(&config).unwrap();
        writer.write(Stream::Stdout, b"after\n");
        let lines = texts(&config, ReadOptions::default()).await;
        assert_eq!(lines, ["before\n", "after\n"], "{driver:?} {damage:?}");
        let last = ReadOptions { tail: Some(1), ..ReadOptions::default() };
        assert_eq!(texts(&config, last).await, ["after\n"]);
    }
}

#[tokio::test]
async fn a_damaged_archive_gives_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let options = [("max-size", "1k"), ("max-file", "3"), ("compress", "true")];
    let config = config(dir.path(), LogDriver::JsonFile, &options);
    let mut writer = LogWriter::open(&config).unwrap();
    for number in 0..20 {
        writer.write(Stream::Stdout, format!("line {number}\n").as_bytes());
    }
    while writer.has_work() {
        writer.idle();
    }
    let archive = dir.path().join("logs/x.log.1.gz");
    let bytes = fs_err::read(&archive).unwrap();
    fs_err::write(&archive, &bytes[..bytes.len() / 2]).unwrap();
    let lines = texts(&config, ReadOptions::default()).await;
    assert_eq!(lines.last().unwrap(), "line 19\n");
}

#[tokio::test]
async fn nothing_is_kept_by_none() {
    let config = LogConfig::default();
    let mut writer = LogWriter::open(&config).unwrap();
    assert!(writer.mark().is_none());
    writer.write(Stream::Stdout, b"x\n");
    let error = read(&config, ReadOptions::default(), std::future::pending()).recv().await;
    let error = error.unwrap().unwrap_err();
    assert_eq!(error.to_string(), "configured logging driver does not support reading");
}

#[test]
fn a_full_disk_leaves_no_part_of_a_record() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), LogDriver::JsonFile, &[]);
    let mut writer = LogWriter::open(&config).unwrap();
    let path = config.path.as_ref().unwrap();
    fs_err::remove_file(path).unwrap();
    std::os::unix::fs::symlink("/dev/full", path).unwrap();
    // A link is not followed.
    assert!(writer.reopen().is_err());
    fs_err::remove_file(path).unwrap();
    writer.reopen().unwrap();
    writer.write(Stream::Stdout, b"x\n");
    assert_eq!(fs_err::read_to_string(path).unwrap().lines().count(), 1);
}
