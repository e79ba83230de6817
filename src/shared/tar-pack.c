/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Packing; see tar.h. Written by hand, as libarchive's writer brings every format it knows along: a header
 * of ustar for each file, before it a header of pax for what does not fit in there.
 */

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/sendfile.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/hashmap.h"
#include "basic/strings.h"
#include "shared/tar.h"

#define BLOCK_BYTES     512U
#define NAME_BYTES      100U
#define SMALL_BYTES     (32 * KIB) /* files up to it go through the buffer */
#define CHUNK_BYTES     (1 * MIB)
#define SPARSE_SIZE_MIN (64 * KIB)

/* ustar, POSIX.1-1988 */
typedef struct Header {
        char name[NAME_BYTES], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type;
        char link[NAME_BYTES], magic[8], user[32], group[32], major[8], minor[8], prefix[155], rest[12];
} Header;
static_assert(sizeof(Header) == BLOCK_BYTES, "a header is a block");

typedef struct Piece {
        uint64_t offset, size;
} Piece;

/* What of a file is no hole; no pieces: all of it. */
typedef struct Pieces {
        Piece *items; /* owned */
        size_t n_items;
        char *map; /* as it stands before the data, a whole number of blocks; owned */
        size_t n_map;
        uint64_t n_data;
} Pieces;

typedef struct Level {
        DIR *dir;
        size_t n_path; /* of the directory, with its slash */
} Level;

/* A file that has more names. */
typedef struct Link {
        char key[2 * 16 + 2];
        char *path;
} Link;

typedef struct Pack {
        int output;
        dev_t device;
        Level levels[TAR_DEPTH_MAX];
        unsigned n_levels;
        char *path; /* in the archive, of what is looked at */
        size_t path_size;
        Hashmap *links;
        TarResult result;
        TarProgress progress;
        void *userdata;
        Fault *fault;
        char buffer[64 * KIB];
        size_t n_buffer;
} Pack;

typedef struct Entry {
        char type;
        const char *path, *link; /* link: NULL for none */
        const struct stat *st;
        uint64_t size;        /* of what follows the header */
        const Pieces *pieces; /* NULL: no holes */
} Entry;

static void pieces_done(Pieces *s) {
        free(s->items);
        free(s->map);
        *s = (Pieces) {};
}

static void pack_pop(Pack *p) {
        (void) closedir(p->levels[--p->n_levels].dir);
}

static Pack* pack_free(Pack *p) {
        Link *l;

        if (!p)
                return NULL;

        while (p->n_levels > 0)
                pack_pop(p);
        HASHMAP_FOREACH(l, p->links) {
                (void) hashmap_remove(p->links, l->key);
                free(l->path);
                free(l);
        }
        (void) hashmap_free(p->links);
        free(p->path);
        free(p);
        return NULL;
}
DEFINE_CLEANUP(Pack, pack_free)

static int fail(Pack *p, int error, const char *path) {
        _cleanup_free_ char *shown = escape_for_display(path, strlen(path));

        if (error == -EPIPE)
                return fault_set_errno(p->fault, error, "Nobody reads the archive any more");
        return fault_set_errno(p->fault, error, "Failed to pack '%.300s'", strempty(shown));
}

/* output */

static int write_out(Pack *p, const void *data, size_t n) {
        int r;

        r = write_all(p->output, data, n);
        return r < 0 ? fail(p, r, p->path) : 0;
}

static int flush(Pack *p) {
        size_t n = p->n_buffer;

        p->n_buffer = 0;
        return write_out(p, p->buffer, n);
}

static int put(Pack *p, const void *data, size_t n) {
        int r;

        p->result.n_packed += n;
        while (n > 0) {
                size_t k = MIN(n, sizeof(p->buffer) - p->n_buffer);

                if (data) {
                        memcpy(p->buffer + p->n_buffer, data, k);
                        data = (const char *) data + k;
                } else
                        memset(p->buffer + p->n_buffer, 0, k);
                p->n_buffer += k;
                n -= k;
                r = p->n_buffer == sizeof(p->buffer) ? flush(p) : 0;
                if (r < 0)
                        return r;
        }

        return 0;
}

/* Fills the last block. */
static int pad(Pack *p) {
        return put(p, NULL, (size_t) (-p->result.n_packed % BLOCK_BYTES));
}

static void report(Pack *p) {
        if (p->progress)
                p->progress(&p->result, p->userdata);
}

/* headers */

/* False: it does not fit, a record of pax has to tell. */
static bool set_number(char *field, size_t n, uint64_t value) {
        field[n - 1] = '\0';
        for (size_t i = n - 1; i-- > 0; value >>= 3)
                field[i] = (char) ('0' + (value & 7));
        return value == 0;
}

static void set_text(char field[static NAME_BYTES], const char *text) {
        memcpy(field, text, strnlen(text, NAME_BYTES));
}

static int put_header(Pack *p, Header *h) {
        unsigned sum = 0;

        memcpy(h->magic, "ustar\00000", 8);
        memset(h->checksum, ' ', sizeof(h->checksum));
        for (size_t i = 0; i < sizeof(*h); i++)
                sum += ((const uint8_t *) h)[i];
        (void) set_number(h->checksum, 7, sum);
        return put(p, h, sizeof(*h));
}

/* "LENGTH KEY=VALUE\n", the length counts itself. */
static int add_record(char **records, const char *key, const char *value) {
        size_t n = strlen(key) + strlen(value) + 3, digits = 1;
        char *longer;

        for (size_t limit = 10; n + digits >= limit; limit *= 10)
                digits++;

        longer = asprintf_null("%s%zu %s=%s\n", strempty(*records), n + digits, key, value);
        if (!longer)
                return -ENOMEM;
        free(*records);
        *records = longer;
        return 0;
}

static int add_number(char **records, const char *key, int64_t value) {
        char text[32];

        (void) snprintf(text, sizeof(text), "%lli", (long long) value);
        return add_record(records, key, text);
}

static bool needs_binary(const char *s) {
        return s && !utf8_is_valid(s, strlen(s));
}

static int add_names(char **records, const Entry *e) {
        bool long_path = strlen(e->path) > NAME_BYTES, long_link = e->link && strlen(e->link) > NAME_BYTES;
        int r = 0;

        if ((long_path || e->pieces ? needs_binary(e->path) : false) || (long_link && needs_binary(e->link)))
                r = add_record(records, "hdrcharset", "BINARY");
        if (r >= 0 && long_path && !e->pieces)
                r = add_record(records, "path", e->path);
        if (r >= 0 && long_link)
                r = add_record(records, "linkpath", e->link);
        if (r < 0 || !e->pieces)
                return r;

        r = add_number(records, "GNU.sparse.major", 1);
        if (r >= 0)
                r = add_number(records, "GNU.sparse.minor", 0);
        if (r >= 0)
                r = add_record(records, "GNU.sparse.name", e->path);
        return r < 0 ? r : add_number(records, "GNU.sparse.realsize", e->st->st_size);
}

/* Fills h and collects what does not fit. */
static int fill_header(Header *h, const Entry *e, char **records) {
        const struct stat *st = e->st;
        int r;

        h->type = e->type;
        set_text(h->name, e->path);
        set_text(h->link, strempty(e->link));
        (void) set_number(h->mode, sizeof(h->mode), st->st_mode & 07777);

        r = add_names(records, e);
        if (r >= 0 && !set_number(h->uid, sizeof(h->uid), st->st_uid))
                r = add_number(records, "uid", st->st_uid);
        if (r >= 0 && !set_number(h->gid, sizeof(h->gid), st->st_gid))
                r = add_number(records, "gid", st->st_gid);
        if (r >= 0 && !set_number(h->size, sizeof(h->size), e->size))
                r = add_number(records, "size", (int64_t) e->size);
        if (r >= 0 && !set_number(h->mtime, sizeof(h->mtime), (uint64_t) st->st_mtim.tv_sec))
                r = add_number(records, "mtime", st->st_mtim.tv_sec);
        return r;
}

static int put_entry(Pack *p, const Entry *e) {
        _cleanup_free_ char *records = NULL;
        Header h = {};
        int r;

        r = fill_header(&h, e, &records);
        if (r < 0)
                return fail(p, r, e->path);

        if (records) {
                Header extended = { .name = "PaxHeaders", .mode = "0000644", .type = 'x' };

                (void) set_number(extended.uid, sizeof(extended.uid), 0);
                (void) set_number(extended.gid, sizeof(extended.gid), 0);
                (void) set_number(extended.size, sizeof(extended.size), strlen(records));
                (void) set_number(extended.mtime, sizeof(extended.mtime), 0);
                r = put_header(p, &extended);
                if (r >= 0)
                        r = put(p, records, strlen(records));
                if (r >= 0)
                        r = pad(p);
                if (r < 0)
                        return r;
        }

        p->result.n_entries++;
        return put_header(p, &h);
}

/* contents */

/* Through the buffer: what is small, and what sendfile(2) does not take. */
static int copy_read(Pack *p, int fd, uint64_t offset, uint64_t size) {
        while (size > 0) {
                char data[16 * KIB];
                ssize_t k;
                int r;

                k = pread(fd, data, MIN(size, sizeof(data)), (off_t) offset);
                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0)
                        return fail(p, -errno, p->path);

                r = put(p, k > 0 ? data : NULL, k > 0 ? (size_t) k : MIN(size, sizeof(data)));
                if (r < 0)
                        return r;
                k = k > 0 ? k : (ssize_t) MIN(size, sizeof(data)); /* cut meanwhile */
                offset += (uint64_t) k;
                size -= (uint64_t) k;
        }

        return 0;
}

static int copy_range(Pack *p, int fd, uint64_t offset, uint64_t size) {
        int r;

        if (size <= SMALL_BYTES)
                return copy_read(p, fd, offset, size);

        r = flush(p);
        if (r < 0)
                return r;
        while (size > 0) {
                off_t at = (off_t) offset;
                ssize_t k;

                k = sendfile(p->output, fd, &at, MIN(size, CHUNK_BYTES));
                if (k < 0 && errno == EINTR)
                        continue;
                if (k < 0 && errno == EPIPE)
                        return fail(p, -EPIPE, p->path);
                if (k <= 0)
                        return copy_read(p, fd, offset, size);

                p->result.n_packed += (uint64_t) k;
                offset += (uint64_t) k;
                size -= (uint64_t) k;
                report(p);
        }

        return 0;
}

static int copy_contents(Pack *p, int fd, const Entry *e) {
        const Pieces *s = e->pieces;
        int r;

        p->result.n_bytes += (uint64_t) e->st->st_size;
        r = s ? put(p, s->map, s->n_map) : copy_range(p, fd, 0, e->size);
        for (size_t i = 0; r >= 0 && s && i < s->n_items; i++)
                r = copy_range(p, fd, s->items[i].offset, s->items[i].size);
        return r < 0 ? r : pad(p);
}

/* holes */

static int pieces_add(Pieces *s, uint64_t offset, uint64_t size) {
        if (s->n_items % 64 == 0) {
                Piece *items = reallocarray(s->items, s->n_items + 64, sizeof(Piece));

                if (!items)
                        return -ENOMEM;
                s->items = items;
        }

        s->items[s->n_items++] = (Piece) { offset, size };
        s->n_data += size;
        return 0;
}

/* The table before the data: its length, then offset and size of each piece, a number a line. */
static int pieces_make_map(Pieces *s) {
        size_t n_line = 2 * 21 + 2, n = 32 + s->n_items * n_line, used;

        s->map = calloc(1, n + BLOCK_BYTES);
        if (!s->map)
                return -ENOMEM;

        used = (size_t) snprintf(s->map, n, "%zu\n", s->n_items);
        for (size_t i = 0; i < s->n_items; i++)
                used += (size_t) snprintf(s->map + used, n - used, "%llu\n%llu\n",
                                          (unsigned long long) s->items[i].offset,
                                          (unsigned long long) s->items[i].size);
        s->n_map = (used + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
        return 0;
}

/* 1 when fd has holes, told in ret. */
static int find_pieces(int fd, const struct stat *st, Pieces *ret) {
        _cleanup_(pieces_done) Pieces s = {};
        int r = 0;

        if ((uint64_t) st->st_size < SPARSE_SIZE_MIN || st->st_blocks * 512 >= st->st_size)
                return 0;

        for (off_t end = 0; r >= 0 && end < st->st_size;) {
                off_t data = lseek(fd, end, SEEK_DATA);

                if (data < 0 && errno != ENXIO)
                        return 0; /* the file system knows no holes */
                if (data < 0 || data >= st->st_size)
                        break;

                end = lseek(fd, data, SEEK_HOLE);
                if (end < 0 || end > st->st_size || s.n_items + 2 >= TAR_SPARSE_MAX)
                        end = st->st_size;
                r = pieces_add(&s, (uint64_t) data, (uint64_t) (end - data));
        }

        if (r >= 0 && s.n_data == (uint64_t) st->st_size)
                return 0;
        if (r >= 0)
                r = pieces_add(&s, (uint64_t) st->st_size, 0); /* where the last hole ends */
        if (r >= 0)
                r = pieces_make_map(&s);
        if (r < 0)
                return r;

        *ret = s;
        s = (Pieces) {};
        return 1;
}

/* files */

/* The name under which the file is in the archive already, or NULL; then it is the one. */
static const char* find_link(Pack *p, const struct stat *st) {
        _cleanup_free_ Link *l = NULL;
        Link *known;

        if (st->st_nlink < 2 || S_ISDIR(st->st_mode))
                return NULL;

        l = malloc(sizeof(Link));
        if (!l)
                return NULL; /* it is told twice then */
        (void) snprintf(l->key, sizeof(l->key), "%llx:%llx", (unsigned long long) st->st_dev,
                        (unsigned long long) st->st_ino);
        known = hashmap_get(p->links, l->key);
        if (known)
                return known->path;

        l->path = hashmap_size(p->links) < TAR_LINKS_MAX ? strdup(p->path) : NULL;
        if (l->path && hashmap_put(p->links, l->key, l) < 0)
                free(TAKE_PTR(l->path));
        if (l->path)
                (void) TAKE_PTR(l);
        return NULL;
}

static int pack_file(Pack *p, int fd, const struct stat *st) {
        _cleanup_(pieces_done) Pieces pieces = {};
        Entry e = { .type = '0', .path = p->path, .st = st, .size = (uint64_t) st->st_size };
        int r;

        e.link = find_link(p, st);
        if (e.link) {
                e.type = '1';
                e.size = 0;
                return put_entry(p, &e);
        }

        r = find_pieces(fd, st, &pieces);
        if (r < 0)
                return fail(p, r, p->path);
        if (r > 0) {
                e.pieces = &pieces;
                e.size = pieces.n_map + pieces.n_data;
        }

        r = put_entry(p, &e);
        return r < 0 ? r : copy_contents(p, fd, &e);
}

static int pack_file_at(Pack *p, int dir_fd, const char *name) {
        _cleanup_close_ int fd = -EBADF;
        struct stat st;

        fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT || errno == ELOOP || errno == ENXIO ? 0 : fail(p, -errno, p->path);
        if (fstat(fd, &st) < 0)
                return fail(p, -errno, p->path);

        return S_ISREG(st.st_mode) ? pack_file(p, fd, &st) : 0;
}

static int pack_symlink(Pack *p, int dir_fd, const char *name, const struct stat *st) {
        char target[PATH_MAX + 1];
        Entry e = { .type = '2', .path = p->path, .st = st };
        ssize_t n;

        n = readlinkat(dir_fd, name, target, PATH_MAX);
        if (n < 0)
                return errno == ENOENT || errno == EINVAL ? 0 : fail(p, -errno, p->path);

        target[n] = '\0';
        e.link = find_link(p, st);
        if (e.link)
                e.type = '1';
        else
                e.link = target;
        return put_entry(p, &e);
}

/* p->path: the directory, with its slash. fd is taken. */
static int pack_push(Pack *p, int fd) {
        DIR *dir;

        if (p->n_levels == TAR_DEPTH_MAX) {
                (void) close(fd);
                return fault_set(p->fault, FAULT_TOO_LARGE, "The tree is more than %u directories deep.",
                                 TAR_DEPTH_MAX);
        }

        dir = fdopendir(fd);
        if (!dir) {
                (void) close(fd);
                return fail(p, -ENOMEM, p->path);
        }

        p->levels[p->n_levels++] = (Level) { .dir = dir, .n_path = strlen(p->path) };
        return 0;
}

static int pack_directory(Pack *p, int dir_fd, const char *name, const struct stat *st) {
        const Entry e = { .type = '5', .path = p->path, .st = st };
        int fd, r;

        r = put_entry(p, &e);
        if (r < 0 || st->st_dev != p->device)
                return r;

        fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT || errno == ELOOP || errno == ENOTDIR ? 0 : fail(p, -errno, p->path);
        return pack_push(p, fd);
}

/* The directory's path and name; a directory's own ends with a slash. */
static int set_path(Pack *p, size_t n_path, const char *name, bool directory) {
        size_t n = n_path + strlen(name) + 2;

        if (n > p->path_size) {
                char *longer = realloc(p->path, 2 * n);

                if (!longer)
                        return -ENOMEM;
                p->path = longer;
                p->path_size = 2 * n;
        }

        (void) snprintf(p->path + n_path, p->path_size - n_path, "%s%s", name, directory ? "/" : "");
        return 0;
}

static int pack_entry(Pack *p, const char *name) {
        const Level *l = &p->levels[p->n_levels - 1];
        int dir_fd = dirfd(l->dir);
        struct stat st;

        if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return errno == ENOENT ? 0 : fail(p, -errno, name);
        if (set_path(p, l->n_path, name, S_ISDIR(st.st_mode)) < 0)
                return fail(p, -ENOMEM, name);

        switch (st.st_mode & S_IFMT) {
        case S_IFREG:
                return pack_file_at(p, dir_fd, name);
        case S_IFDIR:
                return pack_directory(p, dir_fd, name, &st);
        case S_IFLNK:
                return pack_symlink(p, dir_fd, name, &st);
        case S_IFIFO:
                return put_entry(p, &(const Entry) { .type = '6', .path = p->path, .st = &st });
        default:
                p->result.n_skipped++;
                return 0;
        }
}

static int pack_tree(Pack *p, int fd, const struct stat *st) {
        int copy, r;

        r = set_path(p, 0, ".", /* directory= */ true);
        if (r < 0)
                return fail(p, r, ".");
        r = put_entry(p, &(const Entry) { .type = '5', .path = p->path, .st = st });
        if (r < 0)
                return r;
        copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        r = copy < 0 ? fail(p, -errno, ".") : pack_push(p, copy);

        while (r >= 0 && p->n_levels > 0) {
                struct dirent *e = readdir(p->levels[p->n_levels - 1].dir);

                if (!e)
                        pack_pop(p);
                else if (!streq(e->d_name, ".") && !streq(e->d_name, ".."))
                        r = pack_entry(p, e->d_name);
                report(p);
        }

        return r;
}

int tar_pack(int fd, const char *name, int output, TarProgress progress, void *userdata, TarResult *ret,
             Fault *reterr) {
        _cleanup_(pack_freep) Pack *p = calloc(1, sizeof(Pack));
        struct stat st;
        int r;

        if (!p)
                return fault_set_errno(reterr, -ENOMEM, "Failed to pack");
        p->output = output;
        p->progress = progress;
        p->userdata = userdata;
        p->fault = reterr;
        p->links = hashmap_new();
        if (!p->links || fstat(fd, &st) < 0)
                return fail(p, p->links ? -errno : -ENOMEM, name);
        p->device = st.st_dev;

        if (S_ISDIR(st.st_mode))
                r = pack_tree(p, fd, &st);
        else if (!S_ISREG(st.st_mode))
                r = fault_set(reterr, FAULT_INVALID_ARGS,
                              "Cannot pack '%.300s': it is neither a directory nor a regular file.", name);
        else {
                r = set_path(p, 0, name, /* directory= */ false);
                r = r < 0 ? fail(p, r, name) : pack_file(p, fd, &st);
        }

        if (r >= 0)
                r = put(p, NULL, 2 * (size_t) BLOCK_BYTES);
        if (r >= 0)
                r = flush(p);
        if (r >= 0)
                *ret = p->result;
        return r;
}
