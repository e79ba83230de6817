/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "tests/unit/test.h"
#include "worker/untar.h"

#define BLOCK 512

/* A tar made by hand, so that it may say anything. */
typedef struct Tar {
        uint8_t *data;
        size_t n;
} Tar;

static void tar_done(Tar *t) {
        free(t->data);
}

static void tar_grow(Tar *t, const void *data, size_t n) {
        size_t padded = (n + BLOCK - 1) / BLOCK * BLOCK;

        t->data = realloc(t->data, t->n + padded);
        assert(t->data);
        memset(t->data + t->n, 0, padded);
        if (data)
                memcpy(t->data + t->n, data, n);
        t->n += padded;
}

static void tar_header(Tar *t, const char *name, char type, unsigned mode, uint64_t uid, uint64_t size,
                       const char *link) {
        char h[BLOCK] = {};
        unsigned sum = 0;

        (void) snprintf(h, 100, "%s", name);
        (void) snprintf(h + 100, 8, "%07o", mode);
        (void) snprintf(h + 108, 8, "%07o", (unsigned) (uid & 07777777));
        (void) snprintf(h + 116, 8, "%07o", (unsigned) (uid & 07777777));
        (void) snprintf(h + 124, 12, "%011o", (unsigned) (size & 07777777777));
        (void) snprintf(h + 136, 12, "%011o", 1000000000);
        memset(h + 148, ' ', 8);
        h[156] = type;
        (void) snprintf(h + 157, 100, "%s", strempty(link));
        memcpy(h + 257, "ustar\00000", 8);
        for (size_t i = 0; i < BLOCK; i++)
                sum += (uint8_t) h[i];
        (void) snprintf(h + 148, 8, "%06o", sum);
        tar_grow(t, h, BLOCK);
}

static void tar_file(Tar *t, const char *name, const char *text) {
        tar_header(t, name, '0', 0644, getuid(), strlen(text), NULL);
        tar_grow(t, text, strlen(text));
}

static void tar_end(Tar *t) {
        tar_grow(t, NULL, BLOCK);
        tar_grow(t, NULL, BLOCK);
}

/* A directory with "root" to unpack into and a file beside it that nobody may touch. */
typedef struct Place {
        char path[64];
        int fd, root_fd;
} Place;

static void place_make(Place *p) {
        (void) snprintf(p->path, sizeof(p->path), "/tmp/templates-untar-XXXXXX");
        assert(mkdtemp(p->path));
        p->fd = open(p->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert(p->fd >= 0);
        p->root_fd = open_dir_at(p->fd, "root", true, 0755);
        assert(p->root_fd >= 0);
        assert(write_file_atomic_at(p->fd, "victim", "safe", 4, 0644) >= 0);
}

static void place_done(Place *p) {
        _cleanup_free_ char *text = NULL;
        struct dirent *de;
        unsigned n = 0;
        DIR *d;

        /* nothing came out of the root */
        ASSERT_EQ(read_file_at(p->fd, "victim", 100, &text, NULL), 0);
        ASSERT_STREQ(text, "safe");
        d = opendir(p->path);
        assert(d);
        while ((de = readdir(d)))
                n++;
        closedir(d);
        ASSERT_EQ(n, 4);

        close_fd(p->root_fd);
        close_fd(p->fd);
        ASSERT_EQ(remove_tree_at(AT_FDCWD, p->path), 0);
}

static int unpack_fd(Place *p, int fd, const UntarLimits *limits, UntarResult *ret, Fault *fault) {
        return untar(fd, p->root_fd, limits ?: &UNTAR_LIMITS_DEFAULT, NULL, NULL, ret, fault);
}

static int unpack(Place *p, const Tar *t, const UntarLimits *limits, UntarResult *ret, Fault *fault) {
        _cleanup_close_ int fd = memfd_from("tar", t->data, t->n);

        assert(fd >= 0);
        return unpack_fd(p, fd, limits, ret, fault);
}

TEST(ordinary) {
        _cleanup_(tar_done) Tar t = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_free_ char *text = NULL;
        char link[64] = {};
        UntarResult result;
        struct stat st, st2;
        Place p;

        place_make(&p);
        tar_header(&t, "./", '5', 0755, getuid(), 0, NULL);
        tar_header(&t, "./usr/", '5', 0750, getuid(), 0, NULL);
        tar_file(&t, "./usr/a", "hello");
        tar_header(&t, "./usr/b", '1', 0, 0, 0, "./usr/a");
        tar_header(&t, "./etc", '2', 0777, getuid(), 0, "/absolute/is/fine");
        tar_header(&t, "deep/er/x", '0', 04711, getuid(), 0, NULL);
        tar_header(&t, "fifo", '6', 0600, getuid(), 0, NULL);
        tar_header(&t, "dev/null", '3', 0666, getuid(), 0, NULL);
        tar_header(&t, "dev/sda", '4', 0666, getuid(), 0, NULL);
        tar_file(&t, "usr/a", "again");
        tar_end(&t);

        ASSERT_EQ(unpack(&p, &t, NULL, &result, &fault), 0);
        ASSERT_EQ(result.n_entries, 10);
        ASSERT_EQ(result.n_skipped, 2);
        ASSERT_EQ(result.n_bytes, 10);
        ASSERT_EQ(read_file_at(p.root_fd, "usr/a", 100, &text, NULL), 0);
        ASSERT_STREQ(text, "again");
        text = (free(text), NULL);
        ASSERT_EQ(read_file_at(p.root_fd, "usr/b", 100, &text, NULL), 0);
        ASSERT_STREQ(text, "hello"); /* the link stays with the first file */
        ASSERT_EQ(fstatat(p.root_fd, "usr", &st, 0), 0);
        ASSERT_EQ(st.st_mode & 07777, 0750);
        ASSERT_EQ(fstatat(p.root_fd, "usr/a", &st, 0), 0);
        ASSERT_EQ(st.st_mtim.tv_sec, 1000000000);
        ASSERT_EQ(fstatat(p.root_fd, "deep/er/x", &st, 0), 0);
        ASSERT_EQ(st.st_mode & 07777, 04711);
        ASSERT_EQ(fstatat(p.root_fd, "fifo", &st, 0), 0);
        ASSERT_TRUE(S_ISFIFO(st.st_mode));
        ASSERT_EQ(readlinkat(p.root_fd, "etc", link, sizeof(link) - 1), 17);
        ASSERT_STREQ(link, "/absolute/is/fine");
        ASSERT_EQ(fstatat(p.root_fd, "dev/null", &st2, 0), -1);
        place_done(&p);
}

TEST(owners) {
        _cleanup_(tar_done) Tar t = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        UntarResult result;
        struct stat st;
        Place p;

        if (getuid() != 0)
                skip();
        place_make(&p);
        tar_header(&t, "suid", '0', 06755, 1234, 0, NULL);
        tar_header(&t, "link", '2', 0777, 65535, 0, "suid");
        tar_end(&t);
        ASSERT_EQ(unpack(&p, &t, NULL, &result, &fault), 0);
        ASSERT_EQ(fstatat(p.root_fd, "suid", &st, 0), 0);
        ASSERT_EQ(st.st_uid, 1234);
        ASSERT_EQ(st.st_mode & 07777, 06755);
        ASSERT_EQ(fstatat(p.root_fd, "link", &st, AT_SYMLINK_NOFOLLOW), 0);
        ASSERT_EQ(st.st_gid, 65535);
        place_done(&p);
}

TEST(hostile) {
        static const struct {
                const char *what;
                struct {
                        const char *name;
                        char type;
                        const char *link;
                } entries[3];
                int r;
                const char *message; /* part of it */
        } cases[] = {
                { "parent", { { "../victim", '0' } }, -EINVAL, "is not a path below" },
                { "parent later", { { "a/../../victim", '0' } }, -EINVAL, "is not a path below" },
                { "parent last", { { "a/..", '5' } }, -EINVAL, "is not a path below" },
                { "absolute", { { "/etc/wrenn-test", '0' } }, -EINVAL, "is not a path below" },
                { "symlink, then write through",
                  { { "x", '2', ".." }, { "x/victim", '0' } },
                  -EINVAL,
                  "leads through a symbolic link" },
                { "absolute symlink",
                  { { "x", '2', "/tmp" }, { "x/wrenn-test", '0' } },
                  -EINVAL,
                  "leads through a symbolic link" },
                { "symlink as directory",
                  { { "x", '2', ".." }, { "x/", '5' }, { "x/victim", '0' } },
                  0,
                  NULL },
                { "symlink in the middle",
                  { { "a/x", '2', "../.." }, { "a/x/victim", '1', "a/x" } },
                  -EINVAL,
                  "symbolic link" },
                { "hard link out", { { "x", '1', "../victim" } }, -EINVAL, "is a hard link out" },
                { "hard link, absolute", { { "x", '1', "/etc/passwd" } }, -EINVAL, "is a hard link out" },
                { "hard link through a symlink",
                  { { "s", '2', ".." }, { "x", '1', "s/victim" } },
                  -EINVAL,
                  "symbolic link" },
                { "hard link to the symlink",
                  { { "s", '2', "../victim" }, { "x", '1', "s" }, { "x", '0' } },
                  0,
                  NULL },
                { "hard link to nothing", { { "x", '1', "nothing" } }, -EINVAL, "not there" },
                { "hard link to a directory",
                  { { "d", '5' }, { "x", '1', "d" } },
                  -EINVAL,
                  "to a directory" },
                { "file through a file", { { "f", '0' }, { "f/g", '0' } }, -EINVAL, "contradicts" },
                { "file over a full directory", { { "d/f", '0' }, { "d", '0' } }, -EINVAL, "contradicts" },
                { "empty link", { { "x", '2', "" } }, -EINVAL, "" },
                { "dot", { { ".", '0' } }, -EINVAL, "is no directory" },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(tar_done) Tar t = {};
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                UntarResult result;
                Place p;
                int r;

                place_make(&p);
                for (size_t k = 0; k < 3 && cases[i].entries[k].name; k++)
                        tar_header(&t, cases[i].entries[k].name, cases[i].entries[k].type, 0755, getuid(), 0,
                                   cases[i].entries[k].link);
                tar_end(&t);
                r = unpack(&p, &t, NULL, &result, &fault);
                if (r != cases[i].r ||
                    (cases[i].message && !strstr(strempty(fault.message), cases[i].message)))
                        fail_msg("%s: %d, '%s'", cases[i].what, r, strempty(fault.message));
                place_done(&p);
        }
}

TEST(limits) {
        static const UntarLimits small = {
                .entries_max = 100, .bytes_max = 1000, .ratio_max = 1000, .ratio_free_bytes = 1000
        };
        _cleanup_(fault_done) Fault few = FAULT_NULL, bytes = FAULT_NULL, owner = FAULT_NULL,
                                    disk = FAULT_NULL;
        _cleanup_(tar_done) Tar entries = {}, large = {}, foreign = {}, one = {};
        UntarLimits greedy = UNTAR_LIMITS_DEFAULT;
        char name[32], text[600];
        UntarResult result;
        Place p;

        place_make(&p);
        for (unsigned i = 0; i < 101; i++) {
                (void) snprintf(name, sizeof(name), "f%u", i);
                tar_file(&entries, name, "");
        }
        tar_end(&entries);
        ASSERT_EQ(unpack(&p, &entries, &small, &result, &few), -E2BIG);
        ASSERT_STREQ(few.message, "The archive has more than 100 entries.");

        memset(text, 'x', sizeof(text) - 1);
        text[sizeof(text) - 1] = '\0';
        tar_file(&large, "a", text);
        tar_file(&large, "b", text);
        tar_end(&large);
        ASSERT_EQ(unpack(&p, &large, &small, &result, &bytes), -E2BIG);

        tar_header(&foreign, "f", '0', 0644, 65536, 0, NULL);
        tar_end(&foreign);
        ASSERT_EQ(unpack(&p, &foreign, NULL, &result, &owner), -EINVAL);
        ASSERT_STREQ(owner.message, "The archive's entry 'f' has an owner beyond 65535.");

        greedy.disk_free_min = UINT64_MAX;
        tar_file(&one, "z", "1");
        tar_end(&one);
        ASSERT_EQ(unpack(&p, &one, &greedy, &result, &disk), -ENOSPC);
        place_done(&p);
}

/* 256 MiB of zeros, packed to some KiB. */
TEST(ratio) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        char command[256];
        UntarResult result;
        int fd;
        Place p;

        place_make(&p);
        (void) snprintf(command, sizeof(command),
                        "cd %s/root && truncate -s 256M z && tar c z | zstd -q -19 --long > ../victim.zst && rm z",
                        p.path);
        if (system(command) != 0)
                skip();
        fd = openat(p.fd, "victim.zst", O_RDONLY | O_CLOEXEC);
        assert(fd >= 0);
        (void) unlinkat(p.fd, "victim.zst", 0);
        ASSERT_EQ(unpack_fd(&p, fd, NULL, &result, &fault), -E2BIG);
        ASSERT_STREQ(fault.message, "The archive unpacks to more than 1000 times its size.");
        close_fd(fd);
        place_done(&p);
}

/* A hole counts as much as its zeros would: the image has none. */
TEST(sparse) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        char command[256];
        UntarResult result;
        int fd;
        Place p;

        place_make(&p);
        (void) snprintf(command, sizeof(command),
                        "cd %s/root && truncate -s 1G z && tar cS z > ../victim.tar && rm z", p.path);
        if (system(command) != 0)
                skip();
        fd = openat(p.fd, "victim.tar", O_RDONLY | O_CLOEXEC);
        assert(fd >= 0);
        (void) unlinkat(p.fd, "victim.tar", 0);
        ASSERT_EQ(unpack_fd(&p, fd, NULL, &result, &fault), -E2BIG);
        close_fd(fd);
        place_done(&p);
}

TEST(packed) {
        static const char *const tools[] = { "cat", "gzip", "xz", "zstd -q", "bzip2" };

        for (size_t i = 0; i < ELEMENTSOF(tools); i++) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                _cleanup_free_ char *text = NULL;
                char command[256];
                UntarResult result;
                FILE *f;
                Place p;

                place_make(&p);
                (void) snprintf(command, sizeof(command), "cd %s && tar c victim | %s", p.path, tools[i]);
                f = popen(command, "re");
                assert(f);
                ASSERT_EQ(unpack_fd(&p, fileno(f), NULL, &result, &fault), 0);
                pclose(f);
                ASSERT_EQ(read_file_at(p.root_fd, "victim", 100, &text, NULL), 0);
                ASSERT_STREQ(text, "safe");
                place_done(&p);
        }
}

/* Names beyond ASCII, in both formats, in a process without a locale. */
TEST(names) {
        static const char *const formats[] = { "gnu", "posix" };

        for (size_t i = 0; i < ELEMENTSOF(formats); i++) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                char command[512];
                struct stat st;
                UntarResult result;
                FILE *f;
                Place p;

                place_make(&p);
                (void) snprintf(command, sizeof(command),
                                "mkdir %s/t && cd %s/t && echo x >F\u0151 && ln F\u0151 h\u00e4 && ln -s F\u0151 s\u00f6 && "
                                "tar --format=%s -c F\u0151 h\u00e4 s\u00f6 && rm -r ../t",
                                p.path, p.path, formats[i]);
                f = popen(command, "re");
                assert(f);
                if (unpack_fd(&p, fileno(f), NULL, &result, &fault) < 0)
                        fail_msg("%s: %s", formats[i], fault.message);
                pclose(f);
                ASSERT_EQ(fstatat(p.root_fd, "F\u0151", &st, 0), 0);
                ASSERT_EQ(st.st_nlink, 2);
                ASSERT_EQ(fstatat(p.root_fd, "s\u00f6", &st, 0), 0);
                place_done(&p);
        }
}

TEST(no_archive) {
        static const char *const texts[] = { "x", "hello, this is no archive at all", "PK\003\004",
                                             "\x1f\x8b\x08" };

        for (size_t i = 0; i < ELEMENTSOF(texts); i++) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                Tar t = { .data = (uint8_t *) texts[i], .n = strlen(texts[i]) };
                UntarResult result;
                Place p;

                place_make(&p);
                ASSERT_EQ(unpack(&p, &t, NULL, &result, &fault), -EINVAL);
                ASSERT_EQ(fault.code, FAULT_INVALID_ARGS);
                place_done(&p);
        }
}

/* The end is missing, in a header and in the data. */
TEST(truncated) {
        _cleanup_(tar_done) Tar t = {};
        char text[2000] = {};

        memset(text, 'x', sizeof(text) - 1);
        tar_file(&t, "a", "1");
        tar_file(&t, "b", text);
        for (size_t n = 1; n < t.n; n += 191) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                Tar cut = { .data = t.data, .n = n };
                UntarResult result;
                Place p;
                int r;

                place_make(&p);
                r = unpack(&p, &cut, NULL, &result, &fault);
                ASSERT_TRUE(r == 0 || (r == -EINVAL && fault_is_set(&fault)));
                place_done(&p);
        }
}
