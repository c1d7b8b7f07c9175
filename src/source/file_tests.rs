//! Editors, orchestrators and mistakes, as a followed file sees them.

use super::*;

/// Longer than any debounce and poll; a test that waits this long has failed.
const DEADLINE: Duration = Duration::from_secs(20);

struct Followed {
    dir: tempfile::TempDir,
    source: Source,
    _tasks: Tasks,
}

impl Followed {
    fn path(&self) -> PathBuf {
        self.dir.path().join("routes.toml")
    }

    async fn next(&mut self) -> Yield {
        tokio::time::timeout(DEADLINE, self.source.next()).await.expect("the source yields in time")
    }

    /// Waits until this text is yielded; what comes before (half-written texts) is passed over.
    async fn expect(&mut self, text: &str) {
        let until = Instant::now() + DEADLINE;
        loop {
            match tokio::time::timeout_at(until, self.source.next()).await {
                Ok(Ok(update)) if &*update.text == text => return,
                Ok(_) => {}
                Err(_) => panic!("`{text}` never came"),
            }
        }
    }
}

async fn followed(text: &str) -> Followed {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("routes.toml"), text).unwrap();
    let tasks = Tasks::default();
    let source = follow(dir.path().join("routes.toml"), &tasks);
    let mut followed = Followed { dir, source, _tasks: tasks };
    followed.expect(text).await;
    followed
}

#[tokio::test]
async fn follows_a_rename_over_the_file() {
    let mut file = followed("one").await;
    for text in ["two", "three"] {
        let draft = file.dir.path().join(".routes.toml.swp");
        std::fs::write(&draft, text).unwrap();
        std::fs::rename(&draft, file.path()).unwrap();
        file.expect(text).await;
    }
}

#[tokio::test]
async fn follows_a_file_moved_away_and_written_anew() {
    let mut file = followed("one").await;
    std::fs::rename(file.path(), file.dir.path().join("routes.toml~")).unwrap();
    std::fs::write(file.path(), "two").unwrap();
    file.expect("two").await;
}

#[tokio::test]
async fn follows_the_links_of_a_config_map() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    for (version, text) in [("..1", "one"), ("..2", "two")] {
        std::fs::create_dir(dir.path().join(version)).unwrap();
        std::fs::write(dir.path().join(version).join("routes.toml"), text).unwrap();
    }
    symlink("..1", dir.path().join("..data")).unwrap();
    symlink("..data/routes.toml", dir.path().join("routes.toml")).unwrap();
    let tasks = Tasks::default();
    let source = follow(dir.path().join("routes.toml"), &tasks);
    let mut file = Followed { dir, source, _tasks: tasks };
    file.expect("one").await;
    symlink("..2", file.dir.path().join("..data_tmp")).unwrap();
    std::fs::rename(file.dir.path().join("..data_tmp"), file.dir.path().join("..data")).unwrap();
    file.expect("two").await;
}

#[tokio::test]
async fn ends_with_the_last_of_rapid_saves() {
    let mut file = followed("0").await;
    for number in 1..=500 {
        std::fs::write(file.path(), format!("{number:03}")).unwrap();
    }
    file.expect("500").await;
}

fn event(kind: EventKind) -> notify::Event {
    notify::Event::new(kind).add_path(PathBuf::from("/etc/tollgate/routes.toml"))
}

#[tokio::test(start_paused = true)]
async fn waits_longer_for_a_writer_that_pauses() {
    use notify::event::{DataChange, ModifyKind};
    let follower = Follower::new(PathBuf::from("/etc/tollgate/routes.toml"), channel().0);
    let written = event(EventKind::Modify(ModifyKind::Data(DataChange::Any)));
    let closed = event(EventKind::Access(AccessKind::Close(AccessMode::Write)));
    for (events, expect) in [(vec![&written], QUIET_AT_MOST), (vec![&written, &closed], QUIET)] {
        for event in events {
            follower.signs.see(event, OsStr::new("routes.toml"));
        }
        follower.signs.something.notified().await;
        let start = Instant::now();
        follower.settle().await;
        assert_eq!(start.elapsed().as_millis(), expect.as_millis());
    }
}

#[tokio::test]
async fn its_own_reading_is_no_news() {
    let signs = Signs::default();
    signs.see(&event(EventKind::Access(AccessKind::Open(AccessMode::Any))), OsStr::new("routes.toml"));
    signs.see(&event(EventKind::Access(AccessKind::Close(AccessMode::Read))), OsStr::new("routes.toml"));
    assert!(!signs.named.load(Ordering::Relaxed));
    let something = signs.something.notified();
    tokio::pin!(something);
    assert!(futures_util::poll!(something.as_mut()).is_pending());
}

#[tokio::test]
async fn reads_a_truncated_file_and_then_the_whole() {
    let mut file = followed("one").await;
    File::create(file.path()).unwrap();
    file.expect("").await;
    std::fs::write(file.path(), "two").unwrap();
    file.expect("two").await;
}

#[tokio::test]
async fn tells_once_that_a_file_vanished_and_comes_back_to_it() {
    let mut file = followed("one").await;
    std::fs::remove_file(file.path()).unwrap();
    assert_eq!(file.next().await, Err(SourceError::Missing(file.path())));
    // Another file is no news about ours.
    std::fs::write(file.dir.path().join("other"), "x").unwrap();
    std::fs::write(file.path(), "one").unwrap();
    assert_eq!(file.next().await.map(|update| update.text), Ok("one".into()));
}

#[tokio::test]
async fn yields_the_same_text_when_asked() {
    let mut file = followed("one").await;
    file.source.rereader().ask();
    let update = file.next().await.unwrap();
    assert_eq!((&*update.text, update.trigger), ("one", Trigger::Asked));
}

#[tokio::test]
async fn polls_where_no_event_comes() {
    // A change behind a link out of the watched directory makes no event in it.
    let elsewhere = tempfile::tempdir().unwrap();
    std::fs::write(elsewhere.path().join("real"), "one").unwrap();
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("real"), dir.path().join("routes.toml")).unwrap();
    let tasks = Tasks::default();
    let source = follow(dir.path().join("routes.toml"), &tasks);
    let mut file = Followed { dir, source, _tasks: tasks };
    file.expect("one").await;
    std::fs::write(elsewhere.path().join("real"), "two!").unwrap();
    file.expect("two!").await;
}

#[test]
fn refuses_what_is_no_text_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    assert_eq!(read(dir.path()), Err(SourceError::NotAFile(dir.path().to_owned())));
    std::fs::write(&path, b"ab\xff").unwrap();
    assert_eq!(read(&path), Err(SourceError::NotText { path: path.clone(), at: 2 }));
    File::create(&path).unwrap().set_len(TEXT_MAX + 1).unwrap();
    assert_eq!(read(&path), Err(SourceError::TooLong(path)));
}
