/* ops_dir: reading directories of the live tree. Offsets are the backing filesystem's own cookies: right under concurrent change. */
#ifndef YESTER_OPS_DIR_H
#define YESTER_OPS_DIR_H

#include "fs.h"

void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);
void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t offset, struct fuse_file_info *fi);
void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi);

#endif
