//! Which image lies where.

use std::fmt;

/// An image's name in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub repository: String,
    pub tag: String,
}

/// How a lane names its images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repositories {
    /// One an image, in the stand-in's private project.
    OneEach,
    /// A tag an image, in these by turns; never empty.
    Shared(Vec<String>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.repository, self.tag)
    }
}

impl Repositories {
    /// Where an image lies that is pulled, by its number.
    pub fn pulled(&self, number: u64) -> Place {
        self.place(number, format!("base-{number}"))
    }

    /// Where an image is pushed, by its seed.
    pub(super) fn pushed(&self, image: u64) -> Place {
        self.place(image, format!("new-{image:016x}"))
    }

    fn place(&self, number: u64, name: String) -> Place {
        match self {
            Self::OneEach => Place { repository: format!("priv/{name}"), tag: "v1".to_owned() },
            Self::Shared(all) => {
                let turn = number.checked_rem(all.len() as u64).unwrap_or_default();
                let repository = all.get(turn as usize).cloned().unwrap_or_default();
                Place { repository, tag: name }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_a_repository_each_or_a_tag_each() {
        let shared = Repositories::Shared(vec!["a/r".to_owned(), "b/r".to_owned()]);
        assert_eq!(Repositories::OneEach.pulled(3).to_string(), "priv/base-3:v1");
        assert_eq!(Repositories::OneEach.pushed(10).to_string(), "priv/new-000000000000000a:v1");
        assert_eq!(shared.pulled(3).to_string(), "b/r:base-3");
        assert_eq!(shared.pushed(10).to_string(), "a/r:new-000000000000000a");
    }
}
