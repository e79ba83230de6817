/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Namespaces and the empty root: a tmpfs that holds nothing but empty files, each covered by the one file of
 * the host it stands for. The binds are taken as detached mounts, and made read-only, before the root
 * exists; nothing is ever looked up by name below a directory that somebody else can write.
 */

#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "launch/launch.h"

/* linux/mount.h and sys/mount.h cannot both be included with every libc of interest; these few have no
 * wrapper there. */
#define MOUNT_REC     16384UL
#define MOUNT_PRIVATE (1UL << 18)
#define UMOUNT_DETACH 2

#define ROOT_MOUNT_POINT "/run" /* any directory that is always there; covered in our namespace only */

int step_network(Plan *p) {
        if (p->netns_fd < 0) {
                if (unshare(CLONE_NEWNET) < 0)
                        return launch_error(errno, "cannot make an empty network namespace");
                return 0;
        }
        if (setns(p->netns_fd, CLONE_NEWNET) < 0)
                return launch_error(errno, "cannot join the network namespace");
        close(p->netns_fd);
        p->netns_fd = -EBADF;
        return 0;
}

int step_namespaces(Plan *p) {
        if (unshare(CLONE_NEWNS | CLONE_NEWIPC) < 0)
                return launch_error(errno, "cannot make a mount namespace");
        if (syscall(SYS_mount, NULL, "/", NULL, MOUNT_REC | MOUNT_PRIVATE, NULL) < 0)
                return launch_error(errno, "cannot make the mounts private");
        return 0;
}

static int set_mount_flags(int fd, uint64_t flags) {
        struct mount_attr attr = { .attr_set = flags };

        return syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0 ? -errno : 0;
}

/* A detached mount of one file, its flags set. */
static int bind_open(const Bind *b) {
        uint64_t flags = MOUNT_ATTR_NOSUID;
        struct stat st;
        int fd, r;

        fd = (int) syscall(SYS_open_tree, AT_FDCWD, b->host, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        if (fd < 0)
                return launch_error(errno, "cannot bind '%s'", b->host);

        if (fstat(fd, &st) < 0)
                r = launch_error(errno, "cannot look at '%s'", b->host);
        else if (b->device ? !S_ISCHR(st.st_mode) : !S_ISREG(st.st_mode))
                r = launch_error(0, "cannot bind '%s': not a %s", b->host,
                                 b->device ? "character device" : "regular file");
        else {
                flags |= b->device ? MOUNT_ATTR_NOEXEC : MOUNT_ATTR_NODEV;
                flags |= b->read_only ? MOUNT_ATTR_RDONLY : MOUNT_ATTR_NOEXEC;
                r = set_mount_flags(fd, flags);
                if (r < 0)
                        r = launch_error(r, "cannot set the mount flags of '%s'", b->host);
        }
        if (r < 0) {
                close(fd);
                return r;
        }
        return fd;
}

static int fs_option(int fd, const char *key, size_t value) {
        char text[24];

        (void) snprintf(text, sizeof(text), "%zu", value);
        return syscall(SYS_fsconfig, fd, FSCONFIG_SET_STRING, key, text, 0) < 0 ? -errno : 0;
}

/* How many inodes the placeholders can need at most: the root, and each component of each path. */
static size_t count_inodes(const Plan *p) {
        size_t n = 1;

        for (size_t i = 0; i < p->n_binds; i++)
                for (const char *s = p->binds[i].jail; *s; s++)
                        n += *s == '/';
        return n;
}

/* Attaches an empty tmpfs at ROOT_MOUNT_POINT; p->root_fd is its root. */
static int root_make(Plan *p) {
        int fs, r;

        fs = (int) syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
        if (fs < 0)
                return launch_error(errno, "cannot make a tmpfs");

        r = fs_option(fs, "size", 4096);
        if (r >= 0)
                r = fs_option(fs, "nr_inodes", count_inodes(p));
        if (r >= 0 && syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, "mode", "0755", 0) < 0)
                r = -errno;
        if (r >= 0 && syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) < 0)
                r = -errno;
        if (r >= 0) {
                p->root_fd = (int) syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC,
                                           MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
                if (p->root_fd < 0)
                        r = -errno;
        }
        close(fs);
        if (r < 0)
                return launch_error(r, "cannot make a tmpfs");

        if (syscall(SYS_move_mount, p->root_fd, "", AT_FDCWD, ROOT_MOUNT_POINT, MOVE_MOUNT_F_EMPTY_PATH) < 0)
                return launch_error(errno, "cannot mount the new root");
        return 0;
}

/* The placeholder of a file and the directories above it. */
static int placeholder_make(int root_fd, const char *jail) {
        char path[PATH_MAX];
        int fd;

        (void) snprintf(path, sizeof(path), "%s", jail + 1);
        for (char *slash = strchr(path, '/'); slash; slash = strchr(slash + 1, '/')) {
                *slash = 0;
                if (mkdirat(root_fd, path, 0755) < 0 && errno != EEXIST)
                        return launch_error(errno, "cannot make the directory '/%s'", path);
                *slash = '/';
        }
        fd = openat(root_fd, path, O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW | O_CLOEXEC, 0444);
        if (fd < 0)
                return launch_error(errno, "cannot make the file '%s'", jail);
        close(fd);
        return 0;
}

static int bind_attach(Plan *p, const Bind *b, int bind_fd) {
        int r;

        r = placeholder_make(p->root_fd, b->jail);
        if (r < 0)
                return r;
        if (syscall(SYS_move_mount, bind_fd, "", p->root_fd, b->jail + 1, MOVE_MOUNT_F_EMPTY_PATH) < 0)
                return launch_error(errno, "cannot bind '%s' at '%s'", b->host, b->jail);
        return 0;
}

/* The binds become detached mounts first: the new root may cover the directory they are in. */
static int root_fill(Plan *p) {
        static int fds[LAUNCH_BINDS_MAX];
        mode_t mask = umask(0022);
        size_t n = 0;
        int r = 0;

        for (; n < p->n_binds && r >= 0; n++) {
                fds[n] = bind_open(&p->binds[n]);
                if (fds[n] < 0)
                        r = fds[n];
        }
        if (r >= 0)
                r = root_make(p);
        for (size_t i = 0; i < p->n_binds && r >= 0; i++)
                r = bind_attach(p, &p->binds[i], fds[i]);
        while (n > 0)
                if (fds[--n] >= 0)
                        close(fds[n]);
        umask(mask);
        return r;
}

int step_root(Plan *p) {
        int r;

        r = root_fill(p);
        if (r < 0)
                return r;
        r = set_mount_flags(p->root_fd, MOUNT_ATTR_RDONLY);
        if (r < 0)
                return launch_error(r, "cannot make the new root read-only");

        /* The old root is stacked onto the new one and taken off again: nothing needs a directory for it. */
        if (fchdir(p->root_fd) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
                return launch_error(errno, "cannot change the root");
        if (syscall(SYS_umount2, ".", UMOUNT_DETACH) < 0)
                return launch_error(errno, "cannot leave the old root");
        if (chdir("/") < 0)
                return launch_error(errno, "cannot enter the new root");
        close(p->root_fd);
        p->root_fd = -EBADF;
        return 0;
}
