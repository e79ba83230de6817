/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <archive.h>
#include <archive_entry.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/limits.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "worker/untar.h"

#define READ_BLOCK_BYTES (128 * KIB)
#define CHECK_DISK_BYTES (16 * MIB) /* look at the free space that often */
#define PROGRESS_ENTRIES 64U

typedef struct Untar {
        struct archive *archive;
        int root_fd;
        const UntarLimits *limits;
        UntarResult result;
        uint64_t next_disk_check;
        Fault *fault;
} Untar;

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

static void archive_done(struct archive **a) {
        if (*a)
                (void) archive_read_free(*a);
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
                return refuse(u, FAULT_INVALID_ARGS, path, "contradicts an earlier one");

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

/* Opens the directory above name's last component, makes what is missing. *ret_base: within name. */
static int open_parent(int root_fd, char *name, const char **ret_base) {
        char *slash;
        int fd;

        for (size_t n = strlen(name); n > 0 && name[n - 1] == '/'; n--)
                name[n - 1] = '\0';

        slash = strrchr(name, '/');
        *ret_base = slash ? slash + 1 : name;
        if (!slash)
                return open_beneath(root_fd, ".", O_RDONLY | O_DIRECTORY, 0);

        *slash = '\0';
        fd = open_beneath(root_fd, name, O_RDONLY | O_DIRECTORY, 0);
        if (fd == -ENOENT) {
                _cleanup_free_ char *copy = strdup(name);
                _cleanup_close_ int above = -EBADF;
                const char *base;

                if (!copy)
                        return -ENOMEM;
                above = open_parent(root_fd, copy, &base);
                if (above < 0)
                        return above;
                if (mkdirat(above, base, 0755) < 0)
                        return -errno;
                fd = open_beneath(above, base, O_RDONLY | O_DIRECTORY, 0);
        }
        return fd;
}

/* Owner and mode of what was just made. Owner first: a change of it drops the set-id bits. */
static int set_owner_mode(int dir_fd, const char *base, struct archive_entry *e, bool is_link) {
        if (fchownat(dir_fd, base, (uid_t) archive_entry_uid(e), (gid_t) archive_entry_gid(e),
                     AT_SYMLINK_NOFOLLOW) < 0)
                return -errno;
        if (!is_link && fchmodat(dir_fd, base, archive_entry_perm(e) & 07777, 0) < 0)
                return -errno;
        return 0;
}

/* The attributes a root file system carries: capabilities and users' own. Labels and overlay marks belong to
 * the machine that made it. */
static int set_xattrs(Untar *u, int fd, const char *name, struct archive_entry *e) {
        const char *key;
        const void *value;
        size_t n;

        (void) archive_entry_xattr_reset(e);
        while (archive_entry_xattr_next(e, &key, &value, &n) == ARCHIVE_OK) {
                bool caps = key && streq(key, "security.capability");

                if (!key || (!caps && !startswith(key, "user.")))
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
        const UntarLimits *l = u->limits;
        uint64_t free_bytes;

        u->result.n_bytes += n;
        u->result.n_packed = (uint64_t) archive_filter_bytes(u->archive, -1);
        if (u->result.n_bytes > l->bytes_max)
                return fault_set(u->fault, FAULT_TOO_LARGE,
                                 "The archive's files are larger than %" PRIu64 " bytes together.",
                                 l->bytes_max);
        if (u->result.n_bytes > l->ratio_free_bytes &&
            (u->result.n_bytes - l->ratio_free_bytes) / l->ratio_max > u->result.n_packed)
                return fault_set(u->fault, FAULT_TOO_LARGE,
                                 "The archive unpacks to more than %" PRIu64 " times its size.",
                                 l->ratio_max);

        if (u->result.n_bytes >= u->next_disk_check) {
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

static int make_file(Untar *u, int dir_fd, const char *base, const char *name, struct archive_entry *e) {
        _cleanup_close_ int fd = -EBADF;
        struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_nsec = UTIME_OMIT } };
        int r;

        fd = openat(dir_fd, base, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0)
                return refuse_errno(u, name, -errno);

        r = write_data(u, fd, name, archive_entry_size_is_set(e) ? archive_entry_size(e) : 0);
        if (r < 0)
                return r;
        r = set_owner_mode(dir_fd, base, e, /* is_link= */ false);
        if (r < 0)
                return refuse_errno(u, name, r);
        r = set_xattrs(u, fd, name, e);
        if (r < 0)
                return r;

        if (archive_entry_mtime_is_set(e)) {
                times[1] = (struct timespec) { .tv_sec = archive_entry_mtime(e) };
                (void) futimens(fd, times); /* a time the file system cannot hold is no reason to fail */
        }
        return 0;
}

/* A directory may be there already: made for an entry below it, or told twice. */
static int make_directory(Untar *u, int dir_fd, const char *base, const char *name,
                          struct archive_entry *e) {
        _cleanup_close_ int fd = -EBADF;
        int r;

        if (mkdirat(dir_fd, base, 0755) < 0 && errno != EEXIST)
                return refuse_errno(u, name, -errno);
        fd = open_beneath(dir_fd, base, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
        if (fd < 0)
                return refuse_errno(u, name, fd);

        r = set_owner_mode(dir_fd, base, e, /* is_link= */ false);
        if (r < 0)
                return refuse_errno(u, name, r);
        return set_xattrs(u, fd, name, e);
}

static int make_symlink(Untar *u, int dir_fd, const char *base, const char *name, struct archive_entry *e) {
        const char *target = entry_symlink(e);
        int r;

        /* Where it points to matters in the guest only: nothing here follows it. */
        if (isempty(target))
                return refuse(u, FAULT_INVALID_ARGS, name, "is a link to nowhere");
        if (symlinkat(target, dir_fd, base) < 0)
                return refuse_errno(u, name, -errno);
        r = set_owner_mode(dir_fd, base, e, /* is_link= */ true);
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

        from_fd = open_parent(u->root_fd, copy, &from);
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

/* Removes what an earlier entry left at this place, unless both are directories. */
static int clear_place(Untar *u, int dir_fd, const char *base, const char *name, bool directory) {
        struct stat st;

        if (fstatat(dir_fd, base, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return errno == ENOENT ? 0 : refuse_errno(u, name, -errno);
        if (S_ISDIR(st.st_mode) && directory)
                return 0;
        if (unlinkat(dir_fd, base, S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0) < 0)
                return refuse_errno(u, name, -errno);
        return 0;
}

static int make_fifo(Untar *u, int dir_fd, const char *base, const char *name, struct archive_entry *e) {
        int r;

        if (mkfifoat(dir_fd, base, 0600) < 0)
                return refuse_errno(u, name, -errno);
        r = set_owner_mode(dir_fd, base, e, /* is_link= */ false);
        return r < 0 ? refuse_errno(u, name, r) : 0;
}

/* Owner, mode and attributes of the root directory itself ("./"). */
static int set_root(Untar *u, struct archive_entry *e) {
        int r;

        if (archive_entry_filetype(e) != AE_IFDIR)
                return refuse(u, FAULT_INVALID_ARGS, ".", "is no directory");
        r = set_owner_mode(u->root_fd, ".", e, /* is_link= */ false);
        return r < 0 ? refuse_errno(u, ".", r) : set_xattrs(u, u->root_fd, ".", e);
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
        if (archive_entry_uid(e) < 0 || archive_entry_uid(e) > IMPORT_ID_MAX || archive_entry_gid(e) < 0 ||
            archive_entry_gid(e) > IMPORT_ID_MAX)
                return refuse(u, FAULT_INVALID_ARGS, name, "has an owner beyond 65535");
        if (!*clean)
                return set_root(u, e);

        if (!hardlink && (type == AE_IFBLK || type == AE_IFCHR || type == AE_IFSOCK)) {
                u->result.n_skipped++;
                return 0;
        }

        copy = strdup(clean);
        if (!copy)
                return refuse_errno(u, name, -ENOMEM);
        dir_fd = open_parent(u->root_fd, copy, &base);
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

static int unpack_all(Untar *u, UntarProgress progress, void *userdata) {
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
                if (progress && u->result.n_entries % PROGRESS_ENTRIES == 0)
                        progress(&u->result, userdata);
        }
}

int untar(int fd, int root_fd, const UntarLimits *limits, UntarProgress progress, void *userdata,
          UntarResult *ret, Fault *reterr) {
        _cleanup_(archive_done) struct archive *a = archive_read_new();
        Untar u = { .archive = a, .root_fd = root_fd, .limits = limits, .fault = reterr };
        int r;

        if (!a)
                return fault_set_errno(reterr, -ENOMEM, "Failed to unpack");

        (void) archive_read_support_format_tar(a);
        (void) archive_read_support_filter_gzip(a);
        (void) archive_read_support_filter_bzip2(a);
        (void) archive_read_support_filter_xz(a);
        (void) archive_read_support_filter_zstd(a);
        if (archive_read_open_fd(a, fd, READ_BLOCK_BYTES) != ARCHIVE_OK)
                return fault_set(reterr, FAULT_INVALID_ARGS, "This is no tar archive: %s.",
                                 strempty(archive_error_string(a)));

        r = unpack_all(&u, progress, userdata);
        if (r < 0)
                return r;

        u.result.n_packed = (uint64_t) archive_filter_bytes(a, -1);
        *ret = u.result;
        return 0;
}
