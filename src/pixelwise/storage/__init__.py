"""Files in object stores: addresses such as s3://bucket/folder, read and written through fsspec."""
