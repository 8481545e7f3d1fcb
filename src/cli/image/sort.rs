//! The order of a listing of images.

use std::cmp::Ordering;
use std::str::FromStr;

use crate::cloud::image::Image;

/// What images are put in order by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Id,
    Name,
    State,
    Architecture,
    Type,
    Root,
    Size,
    Created,
    Owner,
}

const FIELDS: [(&str, Field); 9] = [
    ("id", Field::Id),
    ("name", Field::Name),
    ("state", Field::State),
    ("architecture", Field::Architecture),
    ("type", Field::Type),
    ("root", Field::Root),
    ("size", Field::Size),
    ("created", Field::Created),
    ("owner", Field::Owner),
];

/// An order, as in `created:desc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    field: Field,
    descending: bool,
}

impl Sort {
    /// Puts images in order; those that are alike stay as they were.
    pub fn apply(self, images: &mut [Image]) {
        images.sort_by(|a, b| {
            let order = self.compare(a, b);
            if self.descending { order.reverse() } else { order }
        });
    }

    fn compare(self, a: &Image, b: &Image) -> Ordering {
        match self.field {
            Field::Id => a.image_id.cmp(&b.image_id),
            Field::Name => a.name.cmp(&b.name),
            Field::State => a.state.cmp(&b.state),
            Field::Architecture => a.architecture.cmp(&b.architecture),
            Field::Type => a.virtualization_type.cmp(&b.virtualization_type),
            Field::Root => a.root_device_type.cmp(&b.root_device_type),
            Field::Size => a.root_size().cmp(&b.root_size()),
            Field::Created => a.creation_date.cmp(&b.creation_date),
            Field::Owner => a.owner_id.cmp(&b.owner_id),
        }
    }
}

impl FromStr for Sort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, direction) = text.split_once(':').unwrap_or((text, "asc"));
        let names = || FIELDS.map(|(name, _)| name).join(", ");
        let field = FIELDS.iter().find(|(field, _)| *field == name).map(|(_, field)| *field);
        let field = field.ok_or_else(|| format!("{name:?} is nothing to sort by; possible are {}", names()))?;
        let descending = match direction {
            "asc" => false,
            "desc" => true,
            other => return Err(format!("{other:?} is no direction: asc or desc, as in {name}:desc")),
        };
        Ok(Self { field, descending })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders() {
        for (text, field, descending) in
            [("name", Field::Name, false), ("size:desc", Field::Size, true), ("created:asc", Field::Created, false)]
        {
            assert_eq!(text.parse(), Ok(Sort { field, descending }));
        }
        for (wrong, words) in [("", "id, name"), ("Name", "id, name"), ("name:up", "desc"), ("name:", "desc")] {
            let error = wrong.parse::<Sort>().unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
