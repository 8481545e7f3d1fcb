//! Product codes: images that one subscribes to before launching them.

use rusqlite::{OptionalExtension, Transaction, params};

use super::{Image, ProductCode};
use crate::cloud::error::CloudError;
use crate::cloud::{Cloud, time};

/// Most characters of a code.
const MAX_CODE: usize = 64;

impl Cloud {
    /// Makes an image of the caller's part of a product. Whoever gives an image a code first sells it; nobody takes a code
    /// away from an image again, and copies and images of instances have it, too.
    ///
    /// # Errors
    /// What [`Cloud::image`] says, `UnauthorizedOperation`; `IncorrectState` for one that is not whole;
    /// `InvalidParameterValue` for what is no code; `OperationNotPermitted` for another's.
    pub fn add_product_code(&mut self, id: &str, code: &ProductCode) -> Result<Image, CloudError> {
        check_code(&code.product_code_id)?;
        let account = self.scope.account.clone();
        self.change_image(id, |tx, image| {
            let ProductCode { product_code_id, product_code_type } = code;
            let insert = "INSERT OR IGNORE INTO products (code, seller) VALUES (?1, ?2)";
            tx.execute(insert, params![product_code_id, account.as_str()])?;
            match seller(tx, product_code_id)? {
                Some(other) if other != account.as_str() => {
                    Err(CloudError::NotPermitted(format!("The product code {product_code_id} is account {other}'s")))
                }
                _ => {
                    let insert = "INSERT OR IGNORE INTO product_codes (image, code, kind) VALUES (?1, ?2, ?3)";
                    tx.execute(insert, params![image.image_id, product_code_id, product_code_type])?;
                    Ok(())
                }
            }
        })
    }

    /// Accepts the terms of a product for the caller, who may then launch its images.
    ///
    /// # Errors
    /// `InvalidParameterValue` for a code that no image has.
    pub fn subscribe(&mut self, code: &str) -> Result<(), CloudError> {
        let account = self.scope.account.clone();
        self.catalogue.write(|tx| {
            check_known(tx, code)?;
            let insert = "INSERT OR IGNORE INTO subscriptions (account, code, accepted) VALUES (?1, ?2, ?3)";
            tx.execute(insert, params![account.as_str(), code, time::now()])?;
            Ok(())
        })
    }

    /// Ends the caller's subscription; instances that run go on.
    ///
    /// # Errors
    /// As [`Cloud::subscribe`].
    pub fn unsubscribe(&mut self, code: &str) -> Result<(), CloudError> {
        let account = self.scope.account.clone();
        self.catalogue.write(|tx| {
            check_known(tx, code)?;
            tx.execute("DELETE FROM subscriptions WHERE account = ?1 AND code = ?2", [account.as_str(), code])?;
            Ok(())
        })
    }
}

fn seller(tx: &Transaction<'_>, code: &str) -> Result<Option<String>, CloudError> {
    Ok(tx.query_row("SELECT seller FROM products WHERE code = ?1", [code], |row| row.get(0)).optional()?)
}

fn check_known(tx: &Transaction<'_>, code: &str) -> Result<(), CloudError> {
    match seller(tx, code)? {
        Some(_) => Ok(()),
        None => Err(CloudError::value(format!("Invalid product code '{code}': no image has it"))),
    }
}

fn check_code(code: &str) -> Result<(), CloudError> {
    if (1..=MAX_CODE).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Ok(());
    }
    Err(CloudError::value(format!("Invalid product code '{code}': it has 1 to {MAX_CODE} letters and digits")))
}
