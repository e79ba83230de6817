/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Unpacking by libarchive; see tar.h. */

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "shared/tar-internal.h"
#include "shared/tar.h"

#define READ_BLOCK_BYTES (128 * KIB)
#define CHECK_DISK_BYTES (16 * MIB) /* look at the free space that often */
#define PROGRESS_ENTRIES 64U
#define PROGRESS_BYTES   (4 * MIB)

/* What a directory gets in the end: its own times change and its mode may forbid while it is filled. */
typedef struct UntarDirectory {
        char *path;
        mode_t mode;
        struct timespec mtime; /* tv_nsec UTIME_OMIT: not told */
} UntarDirectory;

typedef struct Untar {
        struct archive *archive;
        int root_fd;
        const TarOptions *options;
        const TarLimits *limits;
        TarResult result;
        uint64_t next_disk_check, next_progress;
        UntarDirectory *directories;
        size_t n_directories, n_allocated;
        Fault *fault;
} Untar;

static void untar_done(Untar *u) {
        for (size_t i = 0; i < u->n_directories; i++)
                free(u->directories[i].path);
        free(u->directories);
        if (u->archive)
                (void) archive_read_free(u->archive);
}

static bool untar_has(const Untar *u, TarFlags flag) {
        return u->options->flags & flag;
}

/* Names in pax headers are UTF-8, others are bytes; the first call fails where the locale cannot show what
 * the second one gives. */
static const char* entry_name(struct archive_entry *e) {
        return archive_entry_pathname(e) ?: archive_entry_pathname_utf8(e);
}

static const char* entry_hardlink(struct archive_entry *e) {
        return archive_entry_hardlink(e) ?: archive_entry_hardlink_utf8(e);
}

static const char* entry_symlink(struct archive_entry *e) {
        return archive_entry_symlink(e) ?: archive_entry_symlink_utf8(e);
}

/* "'path': " with what cannot be shown escaped. */
static int refuse(Untar *u, FaultCode code, const char *path, const char *why) {
        _cleanup_free_ char *shown = escape_for_display(path, strnlen(path, PATH_MAX));

        return fault_set(u->fault, code, "The archive's entry '%.200s' %s.", strempty(shown), why);
}

static int refuse_errno(Untar *u, const char *path, int error) {
        _cleanup_free_ char *shown = NULL;

        if (error == -ELOOP || error == -EXDEV)
                return refuse(u, FAULT_INVALID_ARGS, path,
                              "leads through a symbolic link or out of the tree");
        if (error == -ENOTDIR || error == -EISDIR || error == -ENOTEMPTY || error == -EEXIST)
                return refuse(u, FAULT_INVALID_ARGS, path, "contradicts what is there already");

        shown = escape_for_display(path, strnlen(path, PATH_MAX));
        return fault_set_errno(u->fault, error, "Failed to unpack '%.200s'", strempty(shown));
}

/* The name below the root, without leading "./"; NULL when it is absolute, empty or has "..". "" is the root
 * itself. */
static const char* clean_name(const char *name) {
        const char *p;

        if (!name || *name == '/' || !*name)
                return NULL;
        for (p = name; *p; p += strcspn(p, "/"), p += strspn(p, "/"))
                if (strncmp(p, "..", 2) == 0 && (p[2] == '/' || p[2] == '\0'))
                        return NULL;

        while (name[0] == '.' && (name[1] == '/' || name[1] == '\0')) {
                name++;
                name += strspn(name, "/");
        }
        return name;
}

static int open_in(const Untar *u, int dir_fd, const char *path, int flags) {
        return untar_has(u, TAR_FOLLOW) ? open_beneath_following(dir_fd, path, flags, 0)
                                        : open_beneath(dir_fd, path, flags, 0);
}

/* A directory that no entry has told of, or not yet. */
static int make_parent(const Untar *u, int dir_fd, const char *base) {
        const TarOptions *o = u->options;

        if (mkdirat(dir_fd, base, 0755) < 0)
                return -errno;
        if (!untar_has(u, TAR_OWNERS) && o->uid != (uid_t) -1 &&
            fchownat(dir_fd, base, o->uid, o->gid, AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;
        return 0;
}

/* Opens the directory above name's last component, makes what is missing. *ret_base: within name. */
static int open_parent(const Untar *u, char *name, const char **ret_base) {
        char *slash;
        int fd, r;

        for (size_t n = strlen(name); n > 0 && name[n - 1] == '/'; n--)
                name[n - 1] = '\0';

        slash = strrchr(name, '/');
        *ret_base = slash ? slash + 1 : name;
        if (!slash)
                return open_in(u, u->root_fd, ".", O_RDONLY | O_DIRECTORY);

        *slash = '\0';
        fd = open_in(u, u->root_fd, name, O_RDONLY | O_DIRECTORY);
        if (fd == -ENOENT) {
                _cleanup_free_ char *copy = strdup(name);
                _cleanup_close_ int above = -EBADF;
                const char *base;

                if (!copy)
                        return -ENOMEM;
                above = open_parent(u, copy, &base);
                if (above < 0)
                        return above;
                r = make_parent(u, above, base);
                if (r < 0)
                        return r;
                fd = open_in(u, above, base, O_RDONLY | O_DIRECTORY);
        }
        return fd;
}

static mode_t entry_mode(const Untar *u, struct archive_entry *e) {
        return archive_entry_perm(e) & (untar_has(u, TAR_SET_ID) ? 07777 : 0777);
}

static int set_owner(const Untar *u, int dir_fd, const char *base, struct archive_entry *e) {
        uid_t uid = u->options->uid;
        gid_t gid = u->options->gid;

        if (untar_has(u, TAR_OWNERS)) {
                uid = (uid_t) archive_entry_uid(e);
                gid = (gid_t) archive_entry_gid(e);
        }
        if (uid == (uid_t) -1)
                return 0;
        return fchownat(dir_fd, base, uid, gid, AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

/* Owner and mode of what was just made. Owner first: a change of it drops the set-id bits. */
static int set_owner_mode(const Untar *u, int dir_fd, const char *base, struct archive_entry *e,
                          bool is_link) {
        int r;

        r = set_owner(u, dir_fd, base, e);
        if (r < 0)
                return r;
        return !is_link && fchmodat(dir_fd, base, entry_mode(u, e), 0) < 0 ? -errno : 0;
}

/* The attributes a root file system carries: capabilities and users' own. Labels and overlay marks belong to
 * the machine that made it. */
static int set_xattrs(Untar *u, int fd, const char *name, struct archive_entry *e) {
        const char *key;
        const void *value;
        size_t n;

        if (!untar_has(u, TAR_XATTRS))
                return 0;

        (void) archive_entry_xattr_reset(e);
        while (archive_entry_xattr_next(e, &key, &value, &n) == ARCHIVE_OK) {
                bool caps = key && streq(key, "security.capability");

                if (!key || !(caps ? untar_has(u, TAR_SET_ID) : startswith(key, "user.") != NULL))
                        continue;
                if (n > IMPORT_XATTR_MAX)
                        return refuse(u, FAULT_TOO_LARGE, name, "has an attribute that is too large");
                if (fsetxattr(fd, key, value, n, 0) < 0) {
                        if (caps || errno != EOPNOTSUPP)
                                return refuse_errno(u, name, -errno);
                        log_debug("'%s' cannot have the attribute '%s' here, ignoring.", name, key);
                }
        }
        return 0;
}

/* Counts n more bytes against the limits. */
static int account(Untar *u, uint64_t n) {
        const TarLimits *l = u->limits;
        uint64_t free_bytes;

        u->result.n_bytes += n;
        u->result.n_packed = (uint64_t) archive_filter_bytes(u->archive, -1);
        if (u->result.n_bytes > l->bytes_max)
                return fault_set(u->fault, FAULT_TOO_LARGE,
                                 "The archive's files are larger than %" PRIu64 " bytes together.",
                                 l->bytes_max);
        if (l->ratio_max > 0 && u->result.n_bytes > l->ratio_free_bytes &&
            (u->result.n_bytes - l->ratio_free_bytes) / l->ratio_max > u->result.n_packed)
                return fault_set(u->fault, FAULT_TOO_LARGE,
                                 "The archive unpacks to more than %" PRIu64 " times its size.",
                                 l->ratio_max);

        if (u->options->progress && u->result.n_packed >= u->next_progress) {
                u->next_progress = u->result.n_packed + PROGRESS_BYTES;
                u->options->progress(&u->result, u->options->userdata);
        }

        if (l->disk_free_min > 0 && u->result.n_bytes >= u->next_disk_check) {
                u->next_disk_check = u->result.n_bytes + CHECK_DISK_BYTES;
                free_bytes = disk_free_bytes(u->root_fd);
                if (free_bytes < l->disk_free_min)
                        return fault_set(u->fault, FAULT_NO_SPACE, "The host's disk is nearly full.");
        }
        return 0;
}

/* The contents of a file; holes stay holes on disk but count. */
static int write_data(Untar *u, int fd, const char *name, int64_t size) {
        int64_t end = 0;
        int r;

        for (;;) {
                const void *data;
                size_t n;
                la_int64_t offset;

                r = archive_read_data_block(u->archive, &data, &n, &offset);
                if (r == ARCHIVE_EOF)
                        break;
                if (r < ARCHIVE_WARN)
                        return fault_set(u->fault, FAULT_INVALID_ARGS, "The archive is damaged: %s.",
                                         strempty(archive_error_string(u->archive)));
                if (offset < end || (uint64_t) offset > u->limits->bytes_max || n > u->limits->bytes_max)
                        return refuse(u, FAULT_INVALID_ARGS, name, "has data out of order");

                r = account(u, (uint64_t) offset - (uint64_t) end + n);
                if (r < 0)
                        return r;
                if (lseek(fd, offset, SEEK_SET) < 0)
                        return refuse_errno(u, name, -errno);
                r = write_all(fd, data, n);
                if (r < 0)
                        return refuse_errno(u, name, r);
                end = offset + (int64_t) n;
        }

        if (size > end) {
                r = account(u, (uint64_t) (size - end));
                if (r < 0)
                        return r;
                if (ftruncate(fd, size) < 0)
                        return refuse_errno(u, name, -errno);
        }
        return 0;
}

static struct timespec entry_mtime(struct archive_entry *e) {
        if (!archive_entry_mtime_is_set(e))
                return (struct timespec) { .tv_nsec = UTIME_OMIT };
        return (struct timespec) { .tv_sec = archive_entry_mtime(e),
                                   .tv_nsec = archive_entry_mtime_nsec(e) };
}

static int make_file(Untar *u, int dir_fd, const char *base, const char *name, struct archive_entry *e) {
        _cleanup_close_ int fd = -EBADF;
        const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, entry_mtime(e) };
        int r;

        fd = openat(dir_fd, base, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0)
                return refuse_errno(u, name, -errno);

        r = write_data(u, fd, name, archive_entry_size_is_set(e) ? archive_entry_size(e) : 0);
        if (r < 0)
                return r;
        r = set_owner_mode(u, dir_fd, base, e, /* is_link= */ false);
        if (r < 0)
                return refuse_errno(u, name, r);
        r = set_xattrs(u, fd, name, e);
        if (r < 0)
                return r;

        (void) futimens(fd, times); /* a time the file system cannot hold is no reason to fail */
        return 0;
}

/* Its mode and time come last. */
static int remember_directory(Untar *u, const char *name, struct archive_entry *e) {
        UntarDirectory *d;

        if (u->n_directories == u->n_allocated) {
                size_t n = MAX(2 * u->n_allocated, (size_t) 64);

                d = reallocarray(u->directories, n, sizeof(UntarDirectory));
                if (!d)
                        return -ENOMEM;
                u->directories = d;
                u->n_allocated = n;
        }

        d = &u->directories[u->n_directories];
        *d = (UntarDirectory) { .path = strdup(name), .mode = entry_mode(u, e), .mtime = entry_mtime(e) };
        if (!d->path)
                return -ENOMEM;
        u->n_directories++;
        return 0;
}

/* The deepest were told of last. */
static void finish_directories(Untar *u) {
        for (size_t i = u->n_directories; i-- > 0;) {
                const UntarDirectory *d = &u->directories[i];
                const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, d->mtime };
                _cleanup_close_ int fd = open_in(u, u->root_fd, d->path, O_RDONLY | O_DIRECTORY);

                if (fd < 0) /* replaced by a later entry */
                        continue;
                (void) fchmod(fd, d->mode);
                (void) futimens(fd, times);
        }
}

static int set_directory(Untar *u, int dir_fd, const char *base, const char *name, struct archive_entry *e) {
        int r;

        if (u->n_directories >= u->limits->directories_max)
                return set_owner_mode(u, dir_fd, base, e, /* is_link= */ false);

        r = remember_directory(u, name, e);
        return r < 0 ? r : set_owner(u, dir_fd, base, e);
}

/* A directory may be there already: made for an entry below it, told twice, or older than we are. */
static int make_directory(Untar *u, int dir_fd, const char *base, const char *name,
                          struct archive_entry *e) {
        _cleanup_close_ int fd = -EBADF;
        bool made = mkdirat(dir_fd, base, 0755) >= 0;
        int r;

        if (!made && errno != EEXIST)
                return refuse_errno(u, name, -errno);
        fd = open_in(u, dir_fd, base, O_RDONLY | O_DIRECTORY);
        if (fd < 0)
                return refuse_errno(u, name, fd);
        if (!made && !untar_has(u, TAR_DIRECTORIES))
                return 0;

        r = set_directory(u, dir_fd, base, name, e);
        if (r < 0)
                return refuse_errno(u, name, r);
        return set_xattrs(u, fd, name, e);
}

static int make_symlink(Untar *u, int dir_fd, const char *base, const char *name, struct archive_entry *e) {
        const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, entry_mtime(e) };
        const char *target = entry_symlink(e);
        int r;

        /* Where it points to matters in the guest only: nothing here follows it. */
        if (isempty(target))
                return refuse(u, FAULT_INVALID_ARGS, name, "is a link to nowhere");
        if (symlinkat(target, dir_fd, base) < 0)
                return refuse_errno(u, name, -errno);
        (void) utimensat(dir_fd, base, times, AT_SYMLINK_NOFOLLOW);
        r = set_owner_mode(u, dir_fd, base, e, /* is_link= */ true);
        return r < 0 ? refuse_errno(u, name, r) : 0;
}

static int make_hardlink(Untar *u, int dir_fd, const char *base, const char *name, const char *target) {
        _cleanup_close_ int from_fd = -EBADF;
        _cleanup_free_ char *copy = NULL;
        const char *clean = clean_name(target), *from;
        struct stat st;

        if (!clean || !*clean)
                return refuse(u, FAULT_INVALID_ARGS, name, "is a hard link out of the tree");
        copy = strdup(clean);
        if (!copy)
                return refuse_errno(u, name, -ENOMEM);

        from_fd = open_parent(u, copy, &from);
        if (from_fd < 0)
                return refuse_errno(u, name, from_fd);
        if (fstatat(from_fd, from, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return errno == ENOENT ? refuse(u, FAULT_INVALID_ARGS, name,
                                                "is a hard link to a file that is not there")
                                       : refuse_errno(u, name, -errno);
        if (S_ISDIR(st.st_mode))
                return refuse(u, FAULT_INVALID_ARGS, name, "is a hard link to a directory");
        if (linkat(from_fd, from, dir_fd, base, 0) < 0)
                return refuse_errno(u, name, -errno);
        return 0;
}

/* Removes what is in this place, unless both are directories. */
static int clear_place(Untar *u, int dir_fd, const char *base, const char *name, bool directory) {
        struct stat st;

        if (fstatat(dir_fd, base, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return errno == ENOENT ? 0 : refuse_errno(u, name, -errno);
        if (S_ISDIR(st.st_mode) && directory)
                return 0;
        if (S_ISLNK(st.st_mode) && directory && untar_has(u, TAR_FOLLOW)) {
                _cleanup_close_ int fd = open_in(u, dir_fd, base, O_RDONLY | O_DIRECTORY);

                if (fd >= 0)
                        return 0;
        }
        if (unlinkat(dir_fd, base, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) < 0)
                return refuse_errno(u, name, -errno);
        return 0;
}

static int make_fifo(Untar *u, int dir_fd, const char *base, const char *name, struct archive_entry *e) {
        const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, entry_mtime(e) };
        int r;

        if (mkfifoat(dir_fd, base, 0600) < 0)
                return refuse_errno(u, name, -errno);
        (void) utimensat(dir_fd, base, times, AT_SYMLINK_NOFOLLOW);
        r = set_owner_mode(u, dir_fd, base, e, /* is_link= */ false);
        return r < 0 ? refuse_errno(u, name, r) : 0;
}

/* Owner, mode and attributes of the root directory itself ("./"). */
static int set_root(Untar *u, struct archive_entry *e) {
        int r;

        if (archive_entry_filetype(e) != AE_IFDIR)
                return refuse(u, FAULT_INVALID_ARGS, ".", "is no directory");
        if (!untar_has(u, TAR_DIRECTORIES))
                return 0;
        r = set_directory(u, u->root_fd, ".", ".", e);
        return r < 0 ? refuse_errno(u, ".", r) : set_xattrs(u, u->root_fd, ".", e);
}

static int check_owner(Untar *u, const char *name, struct archive_entry *e) {
        char text[64];

        if (!untar_has(u, TAR_OWNERS) ||
            (archive_entry_uid(e) >= 0 && archive_entry_uid(e) <= u->limits->id_max &&
             archive_entry_gid(e) >= 0 && archive_entry_gid(e) <= u->limits->id_max))
                return 0;

        (void) snprintf(text, sizeof(text), "has an owner beyond %" PRIu32, u->limits->id_max);
        return refuse(u, FAULT_INVALID_ARGS, name, text);
}

static int unpack_entry(Untar *u, struct archive_entry *e) {
        const char *name = entry_name(e), *hardlink = entry_hardlink(e), *clean, *base;
        _cleanup_free_ char *copy = NULL;
        _cleanup_close_ int dir_fd = -EBADF;
        mode_t type = archive_entry_filetype(e);
        int r;

        clean = clean_name(name);
        if (!clean)
                return refuse(u, FAULT_INVALID_ARGS, strempty(name),
                              "is not a path below the archive's root");
        r = check_owner(u, name, e);
        if (r < 0)
                return r;
        if (!*clean)
                return set_root(u, e);

        if (!hardlink && (type == AE_IFBLK || type == AE_IFCHR || type == AE_IFSOCK ||
                          (type == AE_IFIFO && !untar_has(u, TAR_FIFOS)))) {
                u->result.n_skipped++;
                return 0;
        }

        copy = strdup(clean);
        if (!copy)
                return refuse_errno(u, name, -ENOMEM);
        dir_fd = open_parent(u, copy, &base);
        if (dir_fd < 0)
                return refuse_errno(u, name, dir_fd);
        if (!*base || streq(base, "."))
                return refuse(u, FAULT_INVALID_ARGS, name, "has no name");

        r = clear_place(u, dir_fd, base, name, !hardlink && type == AE_IFDIR);
        if (r < 0)
                return r;
        if (hardlink)
                return make_hardlink(u, dir_fd, base, name, hardlink);

        switch (type) {
        case AE_IFREG:
                return make_file(u, dir_fd, base, name, e);
        case AE_IFDIR:
                return make_directory(u, dir_fd, base, name, e);
        case AE_IFLNK:
                return make_symlink(u, dir_fd, base, name, e);
        case AE_IFIFO:
                return make_fifo(u, dir_fd, base, name, e);
        default:
                return refuse(u, FAULT_INVALID_ARGS, name, "is of an unknown type");
        }
}

static int unpack_all(Untar *u) {
        const TarOptions *o = u->options;
        struct archive_entry *e;
        int r;

        for (;;) {
                r = archive_read_next_header(u->archive, &e);
                if (r == ARCHIVE_EOF)
                        return 0;
                if (r < ARCHIVE_WARN)
                        return fault_set(u->fault, FAULT_INVALID_ARGS,
                                         "This is no tar archive, or it is damaged: %s.",
                                         strempty(archive_error_string(u->archive)));
                if (++u->result.n_entries > u->limits->entries_max)
                        return fault_set(u->fault, FAULT_TOO_LARGE,
                                         "The archive has more than %" PRIu64 " entries.",
                                         u->limits->entries_max);

                r = unpack_entry(u, e);
                if (r >= 0)
                        r = account(u, 0);
                if (r < 0)
                        return r;
                if (o->progress && u->result.n_entries % PROGRESS_ENTRIES == 0)
                        o->progress(&u->result, o->userdata);
        }
}

int tar_unpack(int fd, int root_fd, const TarOptions *options, TarResult *ret, Fault *reterr) {
        _cleanup_(untar_done) Untar u = {
                .archive = archive_read_new(),
                .root_fd = root_fd,
                .options = options,
                .limits = &options->limits,
                .fault = reterr,
        };
        int r;

        if (!u.archive)
                return fault_set_errno(reterr, -ENOMEM, "Failed to unpack");

        (void) archive_read_support_format_tar(u.archive);
        if (options->filters)
                options->filters->add(u.archive);
        if (archive_read_open_fd(u.archive, fd, READ_BLOCK_BYTES) != ARCHIVE_OK)
                return fault_set(reterr, FAULT_INVALID_ARGS, "This is no tar archive: %s.",
                                 strempty(archive_error_string(u.archive)));

        r = unpack_all(&u);
        finish_directories(&u);
        if (r < 0)
                return r;

        u.result.n_packed = (uint64_t) archive_filter_bytes(u.archive, -1);
        *ret = u.result;
        return 0;
}
