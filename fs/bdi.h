/* bdi: how much of the machine's memory dirty pages of our mount may take before whoever stores to them is slowed down (/sys/class/bdi, Documentation/ABI/testing/sysfs-class-bdi).
 *
 * The kernel holds every FUSE mount to 1 % of what may be dirty, strictly (fuse_bdi_init in fs/fuse/inode.c), because an unprivileged daemon could keep the pages for ever. Only stores through shared mappings make
 * dirty pages here, and they are slowed down long before memory is short: 150 MB took 0.6 to 1.4 s, and take 0.3 to 0.5 s without. A daemon of root's is trusted as other filesystems are; but its pages go through
 * another filesystem's, which takes memory too, so that its share stays bounded when memory does get short. */
#ifndef YESTER_BDI_H
#define YESTER_BDI_H

/* `device`: of the mount, "0:39" (mount_point.h). Who is not root leaves it as it is; a kernel without the files too. */
void bdi_set_limits(const char *device);

#endif
