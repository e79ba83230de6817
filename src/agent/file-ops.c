/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "agent/file-ops.h"
#include "agent/file-path.h"
#include "basic/fd.h"
#include "basic/strings.h"

#define OPEN_FLAGS        (O_NONBLOCK | O_NOCTTY | O_CLOEXEC)
#define DIRECTORY_FLAGS   (O_DIRECTORY | O_CLOEXEC)
#define MODE_OF_DIRECTORY 0755

int file_fault(Fault *reterr, int error, bool making, const char *what, const char *path) {
        static const struct {
                int error;
                FaultCode code;
                const char *why;
        } known[] = {
                { ENOENT, FAULT_NOT_FOUND, "no such file or directory" },
                { ENOTDIR, FAULT_NOT_FOUND, "a component of the path is no directory" },
                { EISDIR, FAULT_INVALID_ARGS, "it is a directory" },
                { ENXIO, FAULT_INVALID_ARGS, "it is no regular file" },
                { ELOOP, FAULT_INVALID_ARGS, "too many symbolic links" },
                { ENAMETOOLONG, FAULT_INVALID_ARGS, "the name is too long" },
                { EEXIST, FAULT_ALREADY_EXISTS, "it exists" },
                { ENOTEMPTY, FAULT_ALREADY_EXISTS, "the directory there is not empty" },
                { EXDEV, FAULT_INVALID_ARGS, "it is another file system" },
                { ENOSPC, FAULT_AGENT_NO_SPACE, "the capsule's disk is full" },
                { EDQUOT, FAULT_AGENT_NO_SPACE, "the user's quota in the capsule is used up" },
                { EFBIG, FAULT_TOO_LARGE, "the file system has no files that large" },
                { ENOMEM, FAULT_NO_MEMORY, "out of memory" },
        };

        error = abs(error);
        for (size_t i = 0; i < ELEMENTSOF(known); i++)
                if (known[i].error == error)
                        return fault_set(reterr,
                                         making && error == ENOTDIR ? FAULT_INVALID_ARGS : known[i].code,
                                         "Cannot %s '%.300s': %s.", what, path, known[i].why);

        return fault_set(reterr, FAULT_AGENT, "Cannot %s '%.300s': %s.", what, path, strerror(error));
}

/* -EISDIR and -ENXIO for what has no contents of its own. */
static int check_regular(mode_t mode) {
        return S_ISREG(mode) ? 0 : S_ISDIR(mode) ? -EISDIR : -ENXIO;
}

/* An open of a device may do things, hence the look before; the look after is for who changed it between. */
static int open_regular(const char *path, int flags) {
        _cleanup_close_ int fd = -EBADF;
        struct stat st;
        int r;

        if (stat(path, &st) < 0)
                return -errno;
        r = check_regular(st.st_mode);
        if (r < 0)
                return r;

        fd = open(path, flags | OPEN_FLAGS);
        if (fd < 0 || fstat(fd, &st) < 0)
                return -errno;
        r = check_regular(st.st_mode);
        return r < 0 ? r : TAKE_FD(fd);
}

int file_open(const char *path, uint64_t offset, Fault *reterr) {
        _cleanup_close_ int fd = open_regular(path, O_RDONLY);

        if (fd < 0)
                return file_fault(reterr, fd, /* making= */ false, "read", path);
        if (offset > 0 && (offset > INT64_MAX || lseek(fd, (off_t) offset, SEEK_SET) < 0))
                return fault_set(reterr, FAULT_INVALID_ARGS, "Cannot read '%.300s' from byte %llu on.", path,
                                 (unsigned long long) offset);

        return TAKE_FD(fd);
}

int file_open_directory(const char *path, Fault *reterr) {
        struct stat st;
        int fd;

        fd = open(path, O_RDONLY | DIRECTORY_FLAGS);
        if (fd >= 0)
                return fd;
        if (errno == ENOTDIR && stat(path, &st) >= 0)
                return fault_set(reterr, FAULT_INVALID_ARGS, "Cannot list '%.300s': it is no directory.",
                                 path);
        return file_fault(reterr, -errno, /* making= */ false, "list", path);
}

/* New ones belong to who asked. File systems without owners and files of the kernel keep theirs. */
static int give_to(int fd, const User *u) {
        struct stat st;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (st.st_uid == u->uid && st.st_gid == u->gid)
                return 0;
        if (fchownat(fd, "", u->uid, u->gid, AT_EMPTY_PATH) < 0 && errno != EPERM && errno != EOPNOTSUPP)
                return -errno;
        return 0;
}

/* The directory name in dir_fd, O_PATH; 1 in *ret_made when it is new. */
static int enter_directory(int dir_fd, const char *name, const User *u, bool *ret_made) {
        _cleanup_close_ int fd = -EBADF;
        bool made;
        int r;

        fd = openat(dir_fd, name, O_PATH | DIRECTORY_FLAGS);
        if (fd >= 0 || errno != ENOENT) {
                *ret_made = false;
                return fd >= 0 ? TAKE_FD(fd) : -errno;
        }

        made = mkdirat(dir_fd, name, MODE_OF_DIRECTORY) >= 0;
        if (!made && errno != EEXIST)
                return -errno;
        fd = openat(dir_fd, name, O_PATH | DIRECTORY_FLAGS | O_NOFOLLOW);
        if (fd < 0)
                return errno == ELOOP ? -ENOTDIR : -errno; /* a link to nowhere */

        r = made ? give_to(fd, u) : 0;
        if (r < 0)
                return r;
        *ret_made = made;
        return TAKE_FD(fd);
}

int file_make_directories(const char *path, const User *u, bool *ret_made) {
        _cleanup_free_ char *copy = strdup(path);
        _cleanup_close_ int fd = -EBADF;
        char *state = NULL;

        if (!copy)
                return -ENOMEM;

        *ret_made = false;
        fd = open(path[0] == '/' ? "/" : ".", O_PATH | DIRECTORY_FLAGS);
        if (fd < 0)
                return -errno;

        for (char *name = strtok_r(copy, "/", &state); name; name = strtok_r(NULL, "/", &state)) {
                int next = enter_directory(fd, name, u, ret_made);

                if (next < 0)
                        return next;
                (void) close(fd);
                fd = next;
        }

        return TAKE_FD(fd);
}

int file_mkdir(const char *path, const User *u, Fault *reterr) {
        _cleanup_close_ int fd = -EBADF;
        struct stat st;
        bool made;

        fd = file_make_directories(path, u, &made);
        if (fd == -ENOTDIR && lstat(path, &st) >= 0)
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "Cannot make '%.300s': it exists and is no directory.", path);
        if (fd < 0)
                return file_fault(reterr, fd, /* making= */ true, "make", path);
        if (!made)
                return fault_set(reterr, FAULT_ALREADY_EXISTS, "The directory '%.300s' already exists.",
                                 path);
        return 0;
}

int file_rename(const char *from, const char *to, bool overwrite, Fault *reterr) {
        struct stat st;

        if (renameat2(AT_FDCWD, from, AT_FDCWD, to, overwrite ? 0 : RENAME_NOREPLACE) >= 0)
                return 0;

        switch (errno) {
        case EEXIST:
        case ENOTEMPTY:
                return file_fault(reterr, errno, /* making= */ true, "move to", to);
        case EXDEV:
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "Cannot move '%.300s': '%.300s' is on another file system; copy it.", from,
                                 to);
        case EINVAL:
                return fault_set(reterr, FAULT_INVALID_ARGS, "Cannot move '%.300s' into itself.", from);
        case EISDIR:
        case ENOTDIR:
                if (lstat(from, &st) >= 0 && lstat(to, &st) >= 0)
                        return fault_set(reterr, FAULT_INVALID_ARGS,
                                         "Cannot move '%.300s' over '%.300s': only one is a directory.",
                                         from, to);
                errno = ENOTDIR;
        }

        return file_fault(reterr, errno, /* making= */ false, "move",
                          lstat(from, &st) < 0 || errno != ENOENT ? from : to);
}

/* writing */

static int upload_in_place(const char *path, const User *u) {
        _cleanup_close_ int fd = open_regular(path, O_WRONLY);
        struct stat st;
        int r;

        if (fd < 0)
                return fd;
        if (fstat(fd, &st) < 0 || (st.st_size > 0 && ftruncate(fd, 0) < 0))
                return -errno;

        r = give_to(fd, u);
        return r < 0 ? r : TAKE_FD(fd);
}

/* What a symlink to nowhere points at: made in place, as the name is the link's. */
static int upload_through_link(const char *path, mode_t mode, const User *u) {
        _cleanup_close_ int fd = -EBADF;
        int r;

        fd = open(path, O_WRONLY | O_CREAT | OPEN_FLAGS, 0600);
        if (fd < 0)
                return -errno;

        r = give_to(fd, u);
        if (r < 0)
                return r;
        return fchmod(fd, mode) < 0 ? -errno : TAKE_FD(fd);
}

static int upload_new(FileUpload *f, mode_t mode, const User *u) {
        _cleanup_free_ char *parent = NULL;
        uint64_t random;
        bool made;
        int r;

        r = file_path_split(f->path, &parent, &f->name);
        if (r == -EINVAL || endswith(f->path, "/"))
                return -EISDIR;
        if (r < 0)
                return r;

        f->dir_fd = file_make_directories(parent, u, &made);
        if (f->dir_fd < 0)
                return f->dir_fd;

        if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0)
                random = now_usec(CLOCK_MONOTONIC);
        f->temporary = asprintf_null(".wrenn-%016llx", (unsigned long long) random);
        if (!f->temporary)
                return -ENOMEM;

        f->fd = openat(f->dir_fd, f->temporary, O_WRONLY | O_CREAT | O_EXCL | OPEN_FLAGS, 0600);
        if (f->fd < 0) {
                r = -errno;
                free(TAKE_PTR(f->temporary)); /* not ours to remove */
                return r;
        }

        r = give_to(f->fd, u);
        if (r < 0)
                return r;
        return fchmod(f->fd, mode) < 0 ? -errno : 0;
}

int file_upload_begin(const char *path, mode_t mode, const User *u, FileUpload *ret, Fault *reterr) {
        _cleanup_(file_upload_done) FileUpload f = FILE_UPLOAD_NULL;
        struct stat st;
        int r;

        f.path = strdup(path);
        if (!f.path)
                return file_fault(reterr, -ENOMEM, /* making= */ true, "write", path);

        r = f.fd = upload_in_place(path, u);
        if (r == -ENOENT && lstat(path, &st) >= 0)
                r = f.fd = upload_through_link(path, mode, u);
        else if (r == -ENOENT)
                r = upload_new(&f, mode, u);
        if (r < 0)
                return file_fault(reterr, r, /* making= */ true, "write", path);

        *ret = f;
        f = FILE_UPLOAD_NULL;
        return 0;
}

int file_upload_write(FileUpload *f, const void *data, size_t n, Fault *reterr) {
        int r;

        r = write_all(f->fd, data, n);
        return r < 0 ? file_fault(reterr, r, /* making= */ true, "write", f->path) : 0;
}

int file_upload_end(FileUpload *f, Fault *reterr) {
        if (f->temporary) {
                if (renameat(f->dir_fd, f->temporary, f->dir_fd, f->name) < 0)
                        return file_fault(reterr, -errno, /* making= */ true, "write", f->path);
                free(TAKE_PTR(f->temporary));
        }

        return 0;
}

void file_upload_done(FileUpload *f) {
        if (f->temporary)
                (void) unlinkat(f->dir_fd, f->temporary, 0);
        f->fd = close_fd(f->fd);
        f->dir_fd = close_fd(f->dir_fd);
        free(f->path);
        free(f->name);
        free(f->temporary);
        *f = FILE_UPLOAD_NULL;
}
