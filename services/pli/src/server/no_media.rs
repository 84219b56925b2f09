// SPDX-License-Identifier: MIT OR Apache-2.0
//! Uploads where no process takes them.

use pli_api::media::media_server::Media;
use pli_api::media::{
    BeginUploadRequest, BeginUploadResponse, DeleteUploadRequest, DeleteUploadResponse, FinishUploadRequest,
    FinishUploadResponse, GetPartRequest, GetPartResponse, GetUploadRequest, GetUploadResponse, PutPartRequest,
    PutPartResponse,
};
use pli_api::{ErrorCode, refusal, status_of_error};
use tonic::{Request, Response, Status};

/// Refuses every call.
pub struct NoMedia;

fn none<T>() -> Result<Response<T>, Status> {
    Err(status_of_error(&refusal(ErrorCode::UnknownMethod, "this server takes no uploads")))
}

#[tonic::async_trait]
impl Media for NoMedia {
    async fn begin_upload(&self, _: Request<BeginUploadRequest>) -> Result<Response<BeginUploadResponse>, Status> {
        none()
    }
    async fn get_upload(&self, _: Request<GetUploadRequest>) -> Result<Response<GetUploadResponse>, Status> {
        none()
    }
    async fn put_part(&self, _: Request<PutPartRequest>) -> Result<Response<PutPartResponse>, Status> {
        none()
    }
    async fn finish_upload(&self, _: Request<FinishUploadRequest>) -> Result<Response<FinishUploadResponse>, Status> {
        none()
    }
    async fn get_part(&self, _: Request<GetPartRequest>) -> Result<Response<GetPartResponse>, Status> {
        none()
    }
    async fn delete_upload(&self, _: Request<DeleteUploadRequest>) -> Result<Response<DeleteUploadResponse>, Status> {
        none()
    }
}
