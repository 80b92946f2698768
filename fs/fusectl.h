/* fusectl: what the kernel tells of one FUSE connection, and lets us do to it, in /sys/fs/fuse/connections/N (Documentation/filesystems/fuse, "Control filesystem").
 *
 * Root can mount fusectl (a mount of its own that is attached nowhere); for others it must be there, at /sys/fs/fuse/connections, as systemd has it. What is opened stands for that connection only. */
#ifndef YESTER_FUSECTL_H
#define YESTER_FUSECTL_H

/* The directory of the connection that the mount of `device` ("0:N") has, for openat(2) and the following; to be closed. -1: it is not there (errno). System calls only. */
int fusectl_open(const char *device);
/* How many requests nobody has answered yet, be they the kernel's or with us: those of programs, write-back, reads ahead. 0 too when the connection is gone; -1: that can't be told. Any thread. */
long fusectl_waiting(int directory);

#endif
