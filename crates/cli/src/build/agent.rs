//! An SSH agent with keys of files, for `--ssh id=KEY`: it tells its public keys and signs, and
//! takes no orders (draft-miller-ssh-agent).

mod key;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

pub(super) use key::Key;
use key::{put, take};

/// Bytes of a request. OpenSSH's limit.
const MAX_REQUEST: usize = 256 * 1024;
const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGNATURE: u8 = 14;

/// Answers on a socket in a directory that only this user can enter, for as long as the process
/// lives.
pub(super) fn listen(directory: &Path, keys: Vec<Key>) -> std::io::Result<PathBuf> {
    let path = directory.join("agent");
    let listener = UnixListener::bind(&path)?;
    let keys: Arc<[Key]> = keys.into();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let keys = Arc::clone(&keys);
            tokio::spawn(async move {
                // A client may go at any moment.
                let _gone = serve(client, &keys).await;
            });
        }
    });
    Ok(path)
}

async fn serve(mut client: UnixStream, keys: &[Key]) -> std::io::Result<()> {
    loop {
        let length = usize::try_from(client.read_u32().await?).unwrap_or(usize::MAX);
        if length > MAX_REQUEST {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        let mut request = vec![0; length];
        client.read_exact(&mut request).await?;
        let answer = answer(keys, &request).unwrap_or_else(|| vec![FAILURE]);
        let mut message = Vec::new();
        put(&mut message, &answer);
        client.write_all(&message).await?;
    }
}

/// The answer to a request; `None` for a refusal.
fn answer(keys: &[Key], request: &[u8]) -> Option<Vec<u8>> {
    let (kind, mut rest) = request.split_first()?;
    match *kind {
        REQUEST_IDENTITIES => {
            let mut answer = vec![IDENTITIES];
            answer.extend(u32::try_from(keys.len()).ok()?.to_be_bytes());
            for key in keys {
                put(&mut answer, &key.public);
                put(&mut answer, key.comment.as_bytes());
            }
            Some(answer)
        }
        SIGN_REQUEST => {
            let (public, data) = (take(&mut rest)?, take(&mut rest)?);
            let flags = u32::from_be_bytes(rest.get(..4)?.try_into().ok()?);
            let key = keys.iter().find(|key| key.public == public)?;
            let mut answer = vec![SIGNATURE];
            put(&mut answer, &key.sign(data, flags)?);
            Some(answer)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_its_keys_and_signs() {
        let (key, public) = key::tests::sample();
        let keys = [key];
        let told = answer(&keys, &[REQUEST_IDENTITIES]).unwrap();
        assert_eq!(told[..5], [IDENTITIES, 0, 0, 0, 1]);
        let mut rest = &told[5..];
        let blob = take(&mut rest).unwrap().to_vec();
        assert_eq!(take(&mut rest), Some(&b"a comment"[..]));
        let request = |blob: &[u8]| {
            let mut request = vec![SIGN_REQUEST];
            put(&mut request, blob);
            put(&mut request, b"data");
            request.extend([0; 4]);
            request
        };
        let signed = answer(&keys, &request(&blob)).unwrap();
        let mut signature = take(&mut &signed[1..]).unwrap();
        assert_eq!(take(&mut signature), Some(&b"ssh-ed25519"[..]));
        let verifier = ring::signature::UnparsedPublicKey::new(&ring::signature::ED25519, public);
        verifier.verify(b"data", take(&mut signature).unwrap()).unwrap();
        for (name, refused) in [
            ("another key", request(b"none")),
            ("a cut request", request(&blob)[..20].to_vec()),
            ("a key to be added", vec![17, 0, 0, 0, 0]),
            ("all keys to be removed", vec![19]),
            ("nothing", Vec::new()),
        ] {
            assert_eq!(answer(&keys, &refused), None, "{name}");
        }
    }
}
