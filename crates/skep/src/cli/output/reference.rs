//! Image names as listings show them.

/// Without the digest where there is a tag, and without Docker Hub's own prefix.
pub fn familiar(image: &str) -> String {
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let short = name.strip_prefix("docker.io/library/").or_else(|| name.strip_prefix("docker.io/")).unwrap_or(name);
    let tagged = short.rsplit('/').next().is_some_and(|last| last.contains(':'));
    match digest {
        Some(digest) if !tagged => format!("{short}@{digest}"),
        Some(_) | None => short.to_owned(),
    }
}

/// Repository and tag; Docker's `<none>` where there is no tag.
pub fn repository_and_tag(name: &str) -> (String, String) {
    let familiar = familiar(name);
    if let Some((repository, _)) = familiar.split_once('@') {
        return (repository.to_owned(), "<none>".to_owned());
    }
    match familiar.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
        _ => (familiar, "<none>".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_users_write_them() {
        assert_eq!(familiar("docker.io/library/nginx:1.27@sha256:ab"), "nginx:1.27");
        assert_eq!(familiar("127.0.0.1:5000/app@sha256:ab"), "127.0.0.1:5000/app@sha256:ab");
        assert_eq!(familiar("localhost:5000/library/redis:7"), "localhost:5000/library/redis:7");
        assert_eq!(familiar("docker.io/me/app"), "me/app");
        assert_eq!(repository_and_tag("127.0.0.1:5000/app:v1"), ("127.0.0.1:5000/app".to_owned(), "v1".to_owned()));
    }
}
