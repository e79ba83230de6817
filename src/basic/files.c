/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* See files.h. Trees are removed and files copied without ever following a symlink. */

#include <dirent.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/strings.h"

#define REMOVE_DEPTH_MAX 16U /* open directories at a time; deeper ones are moved up and done later */
#define COPY_CHUNK_BYTES (4 * MIB)

static int open_resolved(int dir_fd, const char *path, int flags, mode_t mode, uint64_t resolve) {
        struct open_how how = {
                .flags = (uint64_t) (flags | O_CLOEXEC),
                .mode = (flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE ? mode : 0,
                .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | resolve,
        };

        /* the kernel asks for another try when a rename came between */
        for (unsigned i = 0; i < 16; i++) {
                long fd;

                fd = syscall(SYS_openat2, dir_fd, path, &how, sizeof(how));
                if (fd >= 0)
                        return (int) fd;
                if (errno != EAGAIN && errno != EINTR)
                        return -errno;
        }

        return -EAGAIN;
}

int open_beneath(int dir_fd, const char *path, int flags, mode_t mode) {
        return open_resolved(dir_fd, path, flags, mode, RESOLVE_NO_SYMLINKS);
}

int open_beneath_following(int dir_fd, const char *path, int flags, mode_t mode) {
        return open_resolved(dir_fd, path, flags, mode, 0);
}

int read_fd(int fd, size_t max, char **ret, size_t *ret_n) {
        _cleanup_free_ char *buffer = NULL;
        size_t n = 0, size = 0;

        for (;;) {
                ssize_t k;

                /* always room for one byte more than allowed, to see that it is too much, and for the NUL */
                if (size - n < 2) {
                        char *p;

                        size = MAX(size * 2, (size_t) 4096);
                        size = MIN(size, max + 2);
                        p = realloc(buffer, size);
                        if (!p)
                                return -ENOMEM;
                        buffer = p;
                }

                k = read_full(fd, buffer + n, size - n - 1);
                if (k < 0)
                        return (int) k;

                n += (size_t) k;
                if (n > max)
                        return -E2BIG;
                if (n < size - 1)
                        break;
        }

        buffer[n] = 0;
        *ret = TAKE_PTR(buffer);
        if (ret_n)
                *ret_n = n;
        return 0;
}

int read_file_at(int dir_fd, const char *path, size_t max, char **ret, size_t *ret_n) {
        _cleanup_close_ int fd = -EBADF;

        fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
        if (fd < 0)
                return -errno;

        return read_fd(fd, max, ret, ret_n);
}

static int write_temporary(int dir_fd, const char *temporary, const void *data, size_t n, mode_t mode) {
        _cleanup_close_ int fd = -EBADF;
        int r;

        fd = openat(dir_fd, temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
        if (fd < 0)
                return -errno;
        if (fchmod(fd, mode) < 0)
                return -errno;

        r = write_all(fd, data, n);
        if (r < 0)
                return r;

        return fsync(fd) < 0 ? -errno : 0;
}

int write_file_atomic_at(int dir_fd, const char *name, const void *data, size_t n, mode_t mode) {
        _cleanup_free_ char *temporary = NULL;
        _cleanup_close_ int directory = -EBADF;
        int r;

        if (isempty(name) || strchr(name, '/'))
                return -EINVAL;

        temporary = asprintf_null(".%s.%i.tmp", name, getpid());
        if (!temporary)
                return -ENOMEM;

        (void) unlinkat(dir_fd, temporary, 0); /* of an earlier process with our number */
        r = write_temporary(dir_fd, temporary, data, n, mode);
        if (r >= 0 && renameat(dir_fd, temporary, dir_fd, name) < 0)
                r = -errno;
        if (r < 0) {
                (void) unlinkat(dir_fd, temporary, 0);
                return r;
        }

        directory = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (directory < 0)
                return -errno;

        return fsync_dir_of(directory);
}

int write_file_at(int dir_fd, const char *path, const void *data, size_t n) {
        _cleanup_close_ int fd = -EBADF;

        fd = openat(dir_fd, path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
        if (fd < 0)
                return -errno;

        return write_all(fd, data, n);
}

static int mkdir_one(const char *path, mode_t mode) {
        struct stat st;

        if (mkdir(path, mode) >= 0)
                return 0;
        if (errno != EEXIST)
                return -errno;
        if (stat(path, &st) < 0)
                return -errno;

        return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
}

int mkdir_parents(const char *path, mode_t mode) {
        _cleanup_free_ char *copy = NULL;
        int r;

        if (isempty(path))
                return -EINVAL;

        copy = strdup(path);
        if (!copy)
                return -ENOMEM;

        for (char *p = copy + 1; *p; p++) {
                if (*p != '/' || p[-1] == '/')
                        continue;

                *p = 0;
                r = mkdir_one(copy, mode);
                *p = '/';
                if (r < 0)
                        return r;
        }

        return mkdir_one(copy, mode);
}

int open_dir_at(int dir_fd, const char *name, bool create, mode_t mode) {
        int fd;

        if (create && mkdirat(dir_fd, name, mode) < 0 && errno != EEXIST)
                return -errno;

        fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        return fd < 0 ? -errno : fd;
}

int fsync_dir_of(int fd) {
        return fsync(fd) < 0 ? -errno : 0;
}

typedef struct Removal {
        int top_fd; /* the tree's root; deep directories are moved here */
        dev_t device;
        uint64_t n_moved;
} Removal;

/* Moves a directory of the tree into its root under a free name. */
static int removal_move_up(Removal *m, int dir_fd, const char *name) {
        for (;;) {
                char target[32];

                (void) snprintf(target, sizeof(target), ".removed-%llu", (unsigned long long) m->n_moved++);
                if (renameat2(dir_fd, name, m->top_fd, target, RENAME_NOREPLACE) >= 0)
                        return 0;
                if (errno != EEXIST)
                        return -errno;
        }
}

static int removal_empty(Removal *m, int dir_fd, unsigned depth);

/* A directory that is to be emptied: made ours and writable where that is needed and allowed (wrennd may
 * chown, and no more). */
static int removal_open(int dir_fd, const char *name, struct stat *ret_st) {
        _cleanup_close_ int fd = -EBADF;

        fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 && errno == EACCES) {
                (void) fchownat(dir_fd, name, geteuid(), (gid_t) -1, AT_SYMLINK_NOFOLLOW);
                (void) fchmodat(dir_fd, name, 0700, 0);
                fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        }
        if (fd < 0 || fstat(fd, ret_st) < 0)
                return -errno;
        if (ret_st->st_uid != geteuid())
                (void) fchown(fd, geteuid(), (gid_t) -1);
        if ((ret_st->st_mode & 0700) != 0700)
                (void) fchmod(fd, 0700);
        return TAKE_FD(fd);
}

/* Removes one entry with all below it; 0 also when it was only moved up. */
static int removal_entry(Removal *m, int dir_fd, const char *name, unsigned depth) {
        _cleanup_close_ int fd = -EBADF;
        struct stat st;
        int r;

        if (unlinkat(dir_fd, name, 0) >= 0 || errno == ENOENT)
                return 0;
        if (errno != EISDIR && errno != EPERM)
                return -errno;
        if (unlinkat(dir_fd, name, AT_REMOVEDIR) >= 0)
                return 0;
        if (errno != ENOTEMPTY && errno != EEXIST)
                return -errno;
        if (depth >= REMOVE_DEPTH_MAX)
                return removal_move_up(m, dir_fd, name);

        fd = removal_open(dir_fd, name, &st);
        if (fd < 0)
                return fd;
        if (st.st_dev != m->device)
                return -EXDEV;

        r = removal_empty(m, fd, depth + 1);
        if (r < 0)
                return r;

        return unlinkat(dir_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}

/* Removes what is in the directory; goes on after an error and returns the first. */
static int removal_empty(Removal *m, int dir_fd, unsigned depth) {
        DIR *d;
        int copy, r = 0;

        copy = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (copy < 0)
                return -errno;

        d = fdopendir(copy);
        if (!d) {
                (void) close(copy);
                return -ENOMEM;
        }

        for (struct dirent *e; (e = readdir(d));) {
                int k;

                if (streq(e->d_name, ".") || streq(e->d_name, ".."))
                        continue;

                k = removal_entry(m, dir_fd, e->d_name, depth);
                if (k < 0 && r >= 0)
                        r = k;
        }

        (void) closedir(d);
        return r;
}

int remove_tree_at(int dir_fd, const char *name) {
        _cleanup_close_ int fd = -EBADF;
        Removal m;
        struct stat st;

        if (isempty(name) || streq(name, ".") || streq(name, ".."))
                return -EINVAL;

        if (unlinkat(dir_fd, name, 0) >= 0 || errno == ENOENT)
                return 0;
        if (errno != EISDIR && errno != EPERM)
                return -errno;

        fd = removal_open(dir_fd, name, &st);
        if (fd < 0)
                return fd;

        m = (Removal) { .top_fd = fd, .device = st.st_dev };

        /* Every round takes REMOVE_DEPTH_MAX levels off; the tree is finite, so are the rounds. */
        for (;;) {
                uint64_t n_moved = m.n_moved;
                int r;

                r = removal_empty(&m, fd, 0);
                if (unlinkat(dir_fd, name, AT_REMOVEDIR) >= 0 || errno == ENOENT)
                        return 0;
                if (r < 0)
                        return r;
                if (errno != ENOTEMPTY && errno != EEXIST)
                        return -errno;
                if (m.n_moved == n_moved)
                        return -ENOTEMPTY; /* somebody else fills it */
        }
}

/* Copies [offset, end) inside the kernel, or by hand where it cannot. */
static int copy_range(int src_fd, int dst_fd, off_t offset, off_t end) {
        _cleanup_free_ char *buffer = NULL;

        while (offset < end) {
                off_t in = offset, out = offset;
                size_t n = (size_t) MIN(end - offset, (off_t) COPY_CHUNK_BYTES);
                ssize_t k;

                if (!buffer) {
                        k = copy_file_range(src_fd, &in, dst_fd, &out, n, 0);
                        if (k > 0) {
                                offset += k;
                                continue;
                        }
                        if (k < 0 && errno == EINTR)
                                continue;
                        if (k < 0 && errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP &&
                            errno != ENOSYS)
                                return -errno;

                        buffer = malloc(COPY_CHUNK_BYTES);
                        if (!buffer)
                                return -ENOMEM;
                }

                k = pread(src_fd, buffer, n, offset);
                if (k < 0)
                        return -errno;
                if (k == 0)
                        return 0; /* cut short meanwhile */

                k = pwrite(dst_fd, buffer, (size_t) k, offset);
                if (k < 0)
                        return -errno;
                offset += k;
        }

        return 0;
}

int copy_sparse(int src_fd, int dst_fd) {
        off_t offset = 0;
        struct stat st;
        int r;

        if (ioctl(dst_fd, FICLONE, src_fd) >= 0)
                return 0;
        if (fstat(src_fd, &st) < 0)
                return -errno;
        if (ftruncate(dst_fd, 0) < 0 || ftruncate(dst_fd, st.st_size) < 0)
                return -errno;

        while (offset < st.st_size) {
                off_t data, hole;

                data = lseek(src_fd, offset, SEEK_DATA);
                if (data < 0 && errno == ENXIO)
                        break; /* a hole until the end */
                hole = data < 0 ? -1 : lseek(src_fd, data, SEEK_HOLE);
                if (hole < 0)
                        return -errno;

                hole = MIN(hole, st.st_size);
                r = copy_range(src_fd, dst_fd, data, hole);
                if (r < 0)
                        return r;

                offset = hole;
        }

        return 0;
}

uint64_t disk_free_bytes(int fd) {
        struct statvfs st;
        uint64_t bytes;

        if (fstatvfs(fd, &st) < 0)
                return 0;

        return __builtin_mul_overflow((uint64_t) st.f_bavail, (uint64_t) st.f_frsize, &bytes) ? UINT64_MAX
                                                                                              : bytes;
}
