//! Names of images, as Docker reads them.

/// The full form of a reference: `nginx` is `docker.io/library/nginx:latest`. An error says what is wrong, in
/// containerd's words.
pub fn normalize(reference: &str) -> Result<String, String> {
    let bad = || format!("couldn't parse image name {reference:?}: invalid reference format");
    let (name, digest) = match reference.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (reference, None),
    };
    if let Some(digest) = digest {
        let hex = digest.strip_prefix("sha256:").ok_or_else(bad)?;
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(bad());
        }
    }
    let last = name.rsplit('/').next().unwrap_or(name);
    let (path, tag) = match last.split_once(':') {
        Some((_, tag)) => (&name[..name.len() - tag.len() - 1], Some(tag)),
        None => (name, None),
    };
    if let Some(tag) = tag {
        let legal = !tag.is_empty() && tag.len() <= 128 && tag.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)) && !tag.starts_with(['.', '-']);
        if !legal {
            return Err(bad());
        }
    }
    let (host, rest) = match path.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first.to_owned(), rest.to_owned()),
        Some(_) => ("docker.io".to_owned(), path.to_owned()),
        None => ("docker.io".to_owned(), format!("library/{path}")),
    };
    let component = |part: &str| {
        let bytes = part.as_bytes();
        !part.is_empty()
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(b))
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
    };
    if !rest.split('/').all(component) {
        return Err(bad());
    }
    let host = if host == "index.docker.io" { "docker.io".to_owned() } else { host };
    Ok(match (tag, digest) {
        (_, Some(digest)) => format!("{host}/{rest}@{digest}"),
        (Some(tag), None) => format!("{host}/{rest}:{tag}"),
        (None, None) => format!("{host}/{rest}:latest"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_dockers() {
        for (given, full) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.12", "docker.io/library/nginx:1.12"),
            ("appropriate/curl", "docker.io/appropriate/curl:latest"),
            ("localhost/x:1", "localhost/x:1"),
            ("127.0.0.1:5000/a/b", "127.0.0.1:5000/a/b:latest"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
        ] {
            assert_eq!(normalize(given).unwrap(), full);
        }
        let digest = format!("nginx@sha256:{}", "a".repeat(64));
        assert_eq!(normalize(&digest).unwrap(), format!("docker.io/library/{digest}"));
    }

    #[test]
    fn names_that_are_none_are_refused() {
        for given in ["", "NGINX", "a b", "nginx:", "a//b", "x@sha256:1", "../etc", "a:b:c/d", "-x"] {
            assert!(normalize(given).unwrap_err().ends_with("invalid reference format"), "{given}");
        }
    }
}
