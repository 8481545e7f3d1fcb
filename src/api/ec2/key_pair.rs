//! Key pairs.

use std::mem::take;

use super::parts::{filters, moment, need, only, tags, tags_for, text};
use crate::api::call::{Asked, Call, actions};
use crate::api::error::ApiError;
use crate::api::model::{
    CreateKeyPairRequest, DeleteKeyPairRequest, DeleteKeyPairResult, DescribeKeyPairsRequest, DescribeKeyPairsResult,
    ImportKeyPairRequest, ImportKeyPairResult, KeyPair, KeyPairInfo,
};
use crate::cloud::key_pair::{self, KeyType};

actions! {
    CreateKeyPairAction => create,
    DeleteKeyPairAction => delete,
    DescribeKeyPairsAction => describe,
    ImportKeyPairAction => import,
}

fn create(call: &mut Call<'_>, asked: &mut Asked<CreateKeyPairRequest>) -> Result<KeyPair, ApiError> {
    let name = need(text(&mut asked.key_name), "KeyName")?;
    let kind = text(&mut asked.key_type).map_or(Ok(KeyType::Rsa), |kind| kind.parse())?;
    only(&mut asked.key_format, "KeyFormat", &["pem"])?;
    let wanted = tags_for("key-pair", &mut asked.tag_specifications)?;
    asked.end()?;
    let made = call.cloud.create_key_pair(&name, kind, &wanted)?;
    Ok(KeyPair {
        key_pair_id: Some(made.pair.key_pair_id.to_string()),
        key_name: Some(made.pair.key_name),
        key_fingerprint: Some(made.pair.key_fingerprint),
        key_material: Some(made.key_material.to_string()),
        tags: tags(&made.pair.tags),
    })
}

fn import(call: &mut Call<'_>, asked: &mut Asked<ImportKeyPairRequest>) -> Result<ImportKeyPairResult, ApiError> {
    let name = need(text(&mut asked.key_name), "KeyName")?;
    let material = need(asked.public_key_material.take(), "PublicKeyMaterial")?;
    let wanted = tags_for("key-pair", &mut asked.tag_specifications)?;
    asked.end()?;
    let format = |_| ApiError::new("InvalidKey.Format", "Key is not in valid OpenSSH public key format");
    let pair = call.cloud.import_key_pair(&name, &String::from_utf8(material.0).map_err(format)?, &wanted)?;
    Ok(ImportKeyPairResult {
        key_pair_id: Some(pair.key_pair_id.to_string()),
        key_name: Some(pair.key_name),
        key_fingerprint: Some(pair.key_fingerprint),
        tags: tags(&pair.tags),
    })
}

fn describe(
    call: &mut Call<'_>,
    asked: &mut Asked<DescribeKeyPairsRequest>,
) -> Result<DescribeKeyPairsResult, ApiError> {
    let (names, ids) = (take(&mut asked.key_names), take(&mut asked.key_pair_ids));
    let filters = filters(&mut asked.filters)?;
    let with_public_key = asked.include_public_key.take() == Some(true);
    asked.end()?;
    let info = |pair: key_pair::KeyPair| KeyPairInfo {
        key_pair_id: Some(pair.key_pair_id.to_string()),
        key_type: Some(pair.key_type.as_str().to_owned()),
        tags: tags(&pair.tags),
        public_key: Some(pair.public_key).filter(|_| with_public_key),
        create_time: moment(&pair.create_time),
        key_name: Some(pair.key_name),
        key_fingerprint: Some(pair.key_fingerprint),
    };
    let found = call.cloud.describe_key_pairs(&names, &ids, &filters)?;
    Ok(DescribeKeyPairsResult { key_pairs: found.into_iter().map(info).collect() })
}

fn delete(call: &mut Call<'_>, asked: &mut Asked<DeleteKeyPairRequest>) -> Result<DeleteKeyPairResult, ApiError> {
    let (name, id) = (text(&mut asked.key_name), text(&mut asked.key_pair_id));
    asked.end()?;
    let given = need(name.or(id), "KeyName")?;
    let gone = call.cloud.delete_key_pair(&given)?;
    Ok(DeleteKeyPairResult { r#return: Some(true), key_pair_id: gone.map(|pair| pair.key_pair_id.to_string()) })
}
