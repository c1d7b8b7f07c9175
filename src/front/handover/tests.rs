//! Both ends of a hand-over in one process, with real listeners and connections.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::*;

/// Far longer than anything takes; a test that waits this long has failed.
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

struct Old {
    dir: tempfile::TempDir,
    public: TcpListener,
    offer: Offer,
}

impl Old {
    fn new() -> Old {
        let dir = tempfile::tempdir().unwrap();
        let offer = Offer::bind(&dir.path().join("handover.sock")).unwrap();
        Old { dir, public: TcpListener::bind("127.0.0.1:0").unwrap(), offer }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("handover.sock")
    }

    fn sockets(&self) -> Vec<(String, OwnedFd)> {
        vec![("listen.public".to_owned(), self.public.as_fd().try_clone_to_owned().unwrap())]
    }
}

fn answers(listener: &TcpListener, address: SocketAddr) {
    listener.set_nonblocking(false).unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    accepted.write_all(b"!").unwrap();
    client.read_exact(&mut [0]).unwrap();
}

#[tokio::test]
async fn the_new_one_waits_for_quit_and_takes_over() {
    let mut old = Old::new();
    let address = old.public.local_addr().unwrap();
    let path = old.path();
    let new = tokio::spawn(async move {
        let (mut inherited, successor) = take_over(&path, LONG).await?;
        let listener = inherited.take_tcp("listen.public", address).unwrap();
        assert_eq!(inherited.names().count(), 0);
        successor.serving().await?;
        // Its own offer stands where the old one's stood.
        Ok::<_, HandoverError>((listener, Offer::bind(&path)?))
    });
    let sockets = old.sockets();
    old.offer.hand_over(sockets, LONG).await.unwrap();
    let (listener, _offer) = new.await.unwrap().unwrap();
    let path = old.path();
    let Old { dir: _dir, public, offer } = old;
    drop((public, offer));
    answers(&listener, address);
    assert!(path.exists(), "the old process must not remove the socket of the new one");
}

#[tokio::test]
async fn quit_may_come_before_the_new_one() {
    let mut old = Old::new();
    let (path, sockets) = (old.path(), old.sockets());
    let handing = tokio::spawn(async move {
        let result = old.offer.hand_over(sockets, LONG).await;
        (old, result)
    });
    tokio::task::yield_now().await;
    let (_inherited, successor) = take_over(&path, LONG).await.unwrap();
    successor.serving().await.unwrap();
    handing.await.unwrap().1.unwrap();
}

#[tokio::test]
async fn goes_on_when_the_new_one_dies_and_hands_over_to_the_next() {
    let mut old = Old::new();
    let address = old.public.local_addr().unwrap();
    for _ in 0..2 {
        let path = old.path();
        let dying = tokio::spawn(async move { drop(take_over(&path, LONG).await.unwrap()) });
        let sockets = old.sockets();
        assert!(matches!(old.offer.hand_over(sockets, LONG).await, Err(HandoverError::Lost(_))));
        dying.await.unwrap();
        answers(&old.public, address);
    }
    let path = old.path();
    let new = tokio::spawn(async move { take_over(&path, LONG).await.unwrap().1.serving().await });
    let sockets = old.sockets();
    old.offer.hand_over(sockets, LONG).await.unwrap();
    new.await.unwrap().unwrap();
}

#[tokio::test]
async fn goes_on_when_the_new_one_is_late_and_tells_it() {
    let mut old = Old::new();
    let path = old.path();
    let late = tokio::spawn(async move { take_over(&path, LONG).await.unwrap() });
    let sockets = old.sockets();
    assert!(matches!(old.offer.hand_over(sockets, SHORT).await, Err(HandoverError::Late(_))));
    let (_inherited, successor) = late.await.unwrap();
    assert!(matches!(successor.serving().await, Err(HandoverError::Withdrawn(_))));
    assert!(old.path().exists());
}

#[tokio::test]
async fn goes_on_when_no_new_one_comes() {
    let mut old = Old::new();
    let sockets = old.sockets();
    assert!(matches!(old.offer.hand_over(sockets, SHORT).await, Err(HandoverError::NoSuccessor(_))));
    assert!(old.path().exists());
}

#[tokio::test]
async fn passes_over_those_that_left_while_they_waited() {
    let mut old = Old::new();
    assert!(matches!(take_over(&old.path(), SHORT).await, Err(HandoverError::NoPredecessor { .. })));
    drop(UnixStream::connect(old.path()).await.unwrap());
    let path = old.path();
    let new = tokio::spawn(async move { take_over(&path, LONG).await.unwrap().1.serving().await });
    let sockets = old.sockets();
    old.offer.hand_over(sockets, LONG).await.unwrap();
    new.await.unwrap().unwrap();
}

#[tokio::test]
async fn refuses_another_protocol() {
    let mut old = Old::new();
    let stream = UnixStream::connect(old.path()).await.unwrap();
    let hello = Message::Hello { protocol: PROTOCOL + 1, version: "9.0.0".to_owned() };
    wire::send(&stream, &hello, None).await.unwrap();
    let sockets = old.sockets();
    assert!(matches!(old.offer.hand_over(sockets, SHORT).await, Err(HandoverError::NoSuccessor(_))));
    assert!(matches!(wire::receive(&stream).await, Ok((Message::Withdrawn { .. }, None))));
}

#[tokio::test]
async fn serves_when_the_old_one_crashes_meanwhile() {
    let old = Old::new();
    let path = old.path();
    let new = tokio::spawn(async move { take_over(&path, LONG).await.unwrap() });
    let stream = old.offer.pass(&old.sockets(), LONG).await.unwrap();
    let (_inherited, successor) = new.await.unwrap();
    drop((stream, old));
    successor.serving().await.unwrap();
}

#[tokio::test]
async fn a_listener_whose_address_changed_is_not_taken() {
    let mut old = Old::new();
    let path = old.path();
    let new = tokio::spawn(async move { take_over(&path, LONG).await.unwrap() });
    let mut sockets = old.sockets();
    sockets.push(("same".to_owned(), old.public.as_fd().try_clone_to_owned().unwrap()));
    let handing = tokio::spawn(async move { old.offer.hand_over(sockets, LONG).await });
    let (mut inherited, successor) = new.await.unwrap();
    assert!(inherited.take_tcp("listen.public", "127.0.0.2:0".parse().unwrap()).is_none());
    assert!(inherited.take_tcp("same", "127.0.0.1:0".parse().unwrap()).is_some());
    assert!(inherited.take_tcp("other", "127.0.0.1:0".parse().unwrap()).is_none());
    successor.serving().await.unwrap();
    handing.await.unwrap().unwrap();
}

#[tokio::test]
async fn the_socket_is_for_its_owner_only() {
    let old = Old::new();
    assert_eq!(std::fs::metadata(old.path()).unwrap().mode() & 0o777, 0o600);
    let open = old.dir.path().join("open");
    std::fs::create_dir(&open).unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(Offer::bind(&open.join("s")), Err(HandoverError::Directory(_))));
}

#[tokio::test]
async fn a_socket_left_by_a_crash_is_replaced_one_in_use_is_not() {
    let old = Old::new();
    assert!(matches!(Offer::bind(&old.path()), Err(HandoverError::InUse(_))));
    let path = old.dir.path().join("left");
    drop(StdUnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let offer = Offer::bind(&path).unwrap();
    drop(offer);
    assert!(!path.exists(), "the socket goes with the process");
    std::fs::write(&path, "").unwrap();
    assert!(matches!(Offer::bind(&path), Err(HandoverError::Socket { .. })));
}
