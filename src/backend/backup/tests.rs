//! What was backed up comes back as it was, or not at all.

use super::super::store::Store;
use super::*;
use crate::backend::moment::new_id;

/// A data directory with a file in it.
async fn data(at: &Path) -> (Store, String) {
    let store = Store::open(at).unwrap();
    crate::durable::directory(&directory(at)).unwrap();
    let id = new_id();
    fs::write(directory(at).join(&id), "hello").unwrap();
    let sha256 = hex(aws_lc_rs::digest::digest(&SHA256, b"hello").as_ref());
    let row = id.clone();
    let written = store.write(move |connection| {
        let sql = "INSERT INTO files VALUES (?1, 'u1', 'a', 'text/plain', 5, ?2, 'owner', 0)";
        connection.execute(sql, [row, sha256])?;
        Ok::<_, StoreError>(())
    });
    written.await.unwrap();
    (store, id)
}

#[tokio::test]
async fn what_is_backed_up_while_it_runs_comes_back() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let (store, id) = data(&at("data")).await;
    let manifest = write(&at("data"), &at("backup")).unwrap();
    assert_eq!((manifest.files.len(), manifest.files[0].size), (1, 5));
    assert!(matches!(write(&at("data"), &at("backup")), Err(BackupError::There(_))));
    assert!(matches!(write(&at("nowhere"), &at("other")), Err(BackupError::NoData(_))));

    let restored = restore(&at("backup"), &at("new"), Existing::Refuse).unwrap();
    assert_eq!((restored.manifest, restored.before), (manifest, None));
    assert_eq!(fs::read_to_string(directory(&at("new")).join(&id)).unwrap(), "hello");
    drop(Store::open(&at("new")).unwrap());

    let refused = restore(&at("backup"), &at("data"), Existing::Refuse);
    assert!(matches!(refused, Err(BackupError::There(_))), "{refused:?}");
    let refused = restore(&at("backup"), &at("data"), Existing::Replace);
    assert!(matches!(refused, Err(BackupError::Store(StoreError::Taken(_)))), "it runs: {refused:?}");
    store.close().await;
    drop(store);
    let before = restore(&at("backup"), &at("data"), Existing::Replace).unwrap().before.unwrap();
    assert!(store::database(&before).is_file() && store::database(&at("data")).is_file());
    let left: Vec<_> = fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".draft")), "{left:?}");
}

#[tokio::test]
async fn what_was_damaged_changes_nothing() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| place.path().join(name);
    let (_store, id) = data(&at("data")).await;
    write(&at("data"), &at("backup")).unwrap();
    let refused = |damage: &dyn Fn(&Path)| {
        let copy = at("damaged");
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir_all(directory(&copy)).unwrap();
        for name in ["data.db", "manifest.json", &format!("files/{id}")] {
            fs::copy(at("backup").join(name), copy.join(name)).unwrap();
        }
        damage(&copy);
        let error = restore(&copy, &at("new"), Existing::Refuse).unwrap_err();
        assert!(!at("new").exists());
        error
    };
    let file = format!("files/{id}");
    let error = refused(&|copy| fs::write(copy.join(&file), "hellO").unwrap());
    assert!(matches!(error, BackupError::Digest { .. }), "{error}");
    let error =
        refused(&|copy| File::options().append(true).open(copy.join("data.db")).unwrap().write_all(b"x").unwrap());
    assert!(matches!(error, BackupError::Digest { .. }), "{error}");
    let error = refused(&|copy| fs::remove_file(copy.join(&file)).unwrap());
    assert!(matches!(error, BackupError::File { .. }), "{error}");
    let edited = |copy: &Path, from: &str, to: &str| {
        let path = copy.join("manifest.json");
        let text = fs::read_to_string(&path).unwrap().replace(from, to);
        fs::write(path, text).unwrap();
    };
    let error = refused(&|copy| edited(copy, &id, "../../../../../../etc/pass"));
    assert!(matches!(error, BackupError::Manifest { .. }), "{error}");
    let error = refused(&|copy| edited(copy, &format!("\"schema\": {}", schema::newest()), "\"schema\": 99"));
    assert!(matches!(error, BackupError::Newer { .. }), "{error}");
}
