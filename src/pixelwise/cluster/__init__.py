"""Prediction of many images in shards, on a Ray cluster or in jobs that know nothing of each other.

Each shard is a call of `inference.batch.predict_folder`, the only path from images to masks. This
package divides the images, brings them to the process that predicts them, puts the results where
they belong, and notes in a manifest which shards are complete.
"""
