use super::*;
use std::fs;
use std::os::unix::fs::symlink;

/// A folder `model/` with a data file, and a secret outside it.
struct Layout {
    dir: tempfile::TempDir,
}

impl Layout {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let p = dir.path();
        fs::create_dir_all(p.join("model/sub")).unwrap();
        fs::write(p.join("secret.bin"), b"SECRETS!").unwrap();
        fs::write(p.join("model/ok.bin"), b"0123456789abcdef").unwrap();
        fs::write(p.join("model/sub/deep.bin"), b"deepdeep").unwrap();
        symlink("../secret.bin", p.join("model/sym")).unwrap();
        symlink("ok.bin", p.join("model/sym_inside")).unwrap();
        symlink("..", p.join("model/dirsym")).unwrap();
        fs::hard_link(p.join("secret.bin"), p.join("model/hard")).unwrap();
        Layout { dir }
    }

    fn load(&self, options: &ExternalOptions, entries: &[(&str, &str)]) -> Result<Vec<u8>, &'static str> {
        let model = self.dir.path().join("model/m.onnx");
        let mut data = ExternalData::new(Some(&model), options, &Limits::default()).map_err(|e| e.id)?;
        data.load(&tensor(entries), 4).map(|b| b.to_vec()).map_err(|e| e.id)
    }
}

fn tensor(entries: &[(&str, &str)]) -> TensorProto {
    let entry =
        |(k, v): &(&str, &str)| StringStringEntryProto { key: Some((*k).into()), value: Some((*v).into()) };
    TensorProto { external_data: entries.iter().map(entry).collect(), ..TensorProto::default() }
}

fn at(location: &str) -> Vec<(&str, &str)> {
    vec![("location", location)]
}

#[test]
fn reads_regions_mapped_and_copied() {
    let l = Layout::new();
    for access in [Access::Map, Access::Read] {
        let options = ExternalOptions { access, ..ExternalOptions::default() };
        let region =
            [("location", "ok.bin"), ("offset", "10"), ("length", "4"), ("checksum", "?"), ("x", "-1")];
        assert_eq!(l.load(&options, &region).unwrap(), b"abcd");
        assert_eq!(l.load(&options, &at("ok.bin")).unwrap(), b"0123");
        assert_eq!(l.load(&options, &at("./sub/deep.bin")).unwrap(), b"deep");
    }
}

#[test]
fn nothing_outside_the_folder_is_opened() {
    let l = Layout::new();
    let secret = l.dir.path().join("secret.bin");
    let cases = [
        ("../secret.bin", "external-escape"),
        ("sub/../../secret.bin", "external-escape"),
        (secret.to_str().unwrap(), "external-escape"),
        ("/dev/zero", "external-escape"),
        ("*/_ORT_MEM_ADDR_/*", "external-missing"),
        ("sym", "external-symlink"),
        ("sym_inside", "external-symlink"),
        ("dirsym/secret.bin", "external-symlink"),
        ("hard", "external-hard-link"),
        ("sub", "external-not-a-file"),
        ("none.bin", "external-missing"),
        ("ok.bin/x", "external-missing"),
        ("", "external-bad-entry"),
        ("ok.bin\0", "external-bad-entry"),
    ];
    for (location, id) in cases {
        assert_eq!(l.load(&ExternalOptions::default(), &at(location)), Err(id), "{location:?}");
    }
    let allow = ExternalOptions { allow_hardlinks: true, ..ExternalOptions::default() };
    assert_eq!(l.load(&allow, &at("hard")).unwrap(), b"SECR");
}

#[test]
fn a_pipe_is_refused_without_waiting() {
    let l = Layout::new();
    let fifo = l.dir.path().join("model/fifo");
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert_eq!(l.load(&ExternalOptions::default(), &at("fifo")), Err("external-not-a-file"));
}

#[test]
fn offsets_and_lengths_are_checked() {
    let l = Layout::new();
    let load = |offset: &str, length: &str| {
        let entries = [("location", "ok.bin"), ("offset", offset), ("length", length)];
        l.load(&ExternalOptions::default(), &entries)
    };
    assert_eq!(load("12", "4").unwrap(), b"cdef");
    assert_eq!(load("13", "4"), Err("external-out-of-range"));
    assert_eq!(load("0", "5"), Err("external-length"));
    assert_eq!(load("9223372036854775807", "4"), Err("external-out-of-range"));
    for bad in ["-1", "+1", " 1", "1.0", "", "18446744073709551615", "99999999999999999999999"] {
        assert_eq!(load(bad, "4"), Err("external-bad-entry"), "{bad:?}");
        assert_eq!(load("0", bad), Err("external-bad-entry"), "{bad:?}");
    }
    assert_eq!(l.load(&ExternalOptions::default(), &[("offset", "0")]), Err("external-bad-entry"));
    let twice = [("location", "ok.bin"), ("location", "ok.bin")];
    assert_eq!(l.load(&ExternalOptions::default(), &twice), Err("external-bad-entry"));
}

#[test]
fn an_explicit_root_allows_links_below_it_only() {
    let l = Layout::new();
    let p = l.dir.path();
    fs::create_dir_all(p.join("cache/blobs")).unwrap();
    fs::create_dir_all(p.join("cache/snap")).unwrap();
    fs::write(p.join("cache/blobs/b"), b"blob").unwrap();
    symlink("../blobs/b", p.join("cache/snap/w.bin")).unwrap();
    symlink("../../secret.bin", p.join("cache/snap/out.bin")).unwrap();
    let options = ExternalOptions { root: Some(p.join("cache")), ..ExternalOptions::default() };
    let model = p.join("cache/snap/m.onnx");
    let mut data = ExternalData::new(Some(&model), &options, &Limits::default()).unwrap();
    assert_eq!(&data.load(&tensor(&at("w.bin")), 4).unwrap()[..], b"blob");
    assert_eq!(data.load(&tensor(&at("out.bin")), 4).unwrap_err().id, "external-escape");
}

#[test]
fn a_model_from_bytes_needs_a_root() {
    let l = Layout::new();
    let mut refused = ExternalData::new(None, &ExternalOptions::default(), &Limits::default()).unwrap();
    assert_eq!(refused.load(&tensor(&at("ok.bin")), 4).unwrap_err().id, "external-no-root");
    let options = ExternalOptions { root: Some(l.dir.path().join("model")), ..ExternalOptions::default() };
    let mut data = ExternalData::new(None, &options, &Limits::default()).unwrap();
    assert_eq!(&data.load(&tensor(&at("ok.bin")), 4).unwrap()[..], b"0123");
}

#[test]
fn the_fallback_follows_no_link_either() {
    let l = Layout::new();
    let root = open_folder(&l.dir.path().join("model")).unwrap();
    let open = |p: &str| open_by_component(&root, Path::new(p));
    assert!(open("sub/deep.bin").is_ok());
    assert_eq!(open("../secret.bin").unwrap_err(), Errno::XDEV);
    assert_eq!(open("/dev/zero").unwrap_err(), Errno::XDEV);
    assert_eq!(open("sym").unwrap_err(), Errno::LOOP);
    assert!(open("dirsym/secret.bin").is_err());
    assert_eq!(open(".").unwrap_err(), Errno::NOENT);
}
