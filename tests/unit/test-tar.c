/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "shared/tar.h"
#include "tests/unit/test.h"

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

/* As an import does. */
static int unpack_fd(Place *p, int fd, const TarLimits *limits, TarResult *ret, Fault *fault) {
        const TarOptions options = {
                .flags = TAR_OWNERS | TAR_SET_ID | TAR_XATTRS | TAR_FIFOS | TAR_DIRECTORIES,
                .limits = limits ? *limits : TAR_LIMITS_IMPORT,
                .filters = &tar_filters,
        };

        return tar_unpack(fd, p->root_fd, &options, ret, fault);
}

static int unpack(Place *p, const Tar *t, const TarLimits *limits, TarResult *ret, Fault *fault) {
        _cleanup_close_ int fd = memfd_from("tar", t->data, t->n);

        assert(fd >= 0);
        return unpack_fd(p, fd, limits, ret, fault);
}

TEST(ordinary) {
        _cleanup_(tar_done) Tar t = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_free_ char *text = NULL;
        char link[64] = {};
        TarResult result;
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
        TarResult result;
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
                TarResult result;
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
        static const TarLimits small = { .entries_max = 100,
                                         .bytes_max = 1000,
                                         .ratio_max = 1000,
                                         .ratio_free_bytes = 1000,
                                         .id_max = IMPORT_ID_MAX };
        _cleanup_(fault_done) Fault few = FAULT_NULL, bytes = FAULT_NULL, owner = FAULT_NULL,
                                    disk = FAULT_NULL;
        _cleanup_(tar_done) Tar entries = {}, large = {}, foreign = {}, one = {};
        TarLimits greedy = TAR_LIMITS_IMPORT;
        char name[32], text[600];
        TarResult result;
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
        TarResult result;
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
        TarResult result;
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
                TarResult result;
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
                TarResult result;
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
                TarResult result;
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
                TarResult result;
                Place p;
                int r;

                place_make(&p);
                r = unpack(&p, &cut, NULL, &result, &fault);
                ASSERT_TRUE(r == 0 || (r == -EINVAL && fault_is_set(&fault)));
                place_done(&p);
        }
}

/* ---- packing -------------------------------------------------------------------------------- */

static int shell(const Place *p, const char *script) {
        char *argv[] = { (char *) "bash", (char *) "-euc", (char *) script, NULL };
        pid_t pid = fork();
        int status;

        if (pid == 0) {
                if (chdir(p->path) < 0)
                        _exit(126);
                execvp(argv[0], argv);
                _exit(127);
        }
        assert(pid > 0 && waitpid(pid, &status, 0) == pid);
        return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* All that one tree can be told from another by. */
#define LISTING(tree)                                                                                \
        "(cd " tree " && find . ! -type p -printf '%P|%y|%m|%l|%n|%T@\\n' | sed 's/[.][0-9]*$//' | " \
        "LC_ALL=C sort && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum)"

/* Packs root and takes it away. */
static int pack_root(Place *p, TarResult *ret, Fault *fault) {
        _cleanup_close_ int fd = openat(p->fd, "archive", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        int r;

        assert(fd >= 0);
        r = tar_pack(p->root_fd, "root", fd, NULL, NULL, ret, fault);
        assert(r < 0 || lseek(fd, 0, SEEK_END) == (off_t) ret->n_packed);
        assert(r < 0 || ret->n_packed % 512 == 0);
        return r;
}

static int unpack_root(Place *p, const TarOptions *options, TarResult *ret, Fault *fault) {
        _cleanup_close_ int fd = openat(p->fd, "archive", O_RDONLY | O_CLOEXEC);

        assert(fd >= 0);
        return tar_unpack(fd, p->root_fd, options, ret, fault);
}

static void place_remake(Place *p, const char *keep) {
        assert(renameat(p->fd, "root", p->fd, keep) >= 0);
        p->root_fd = close_fd(p->root_fd);
        p->root_fd = open_dir_at(p->fd, "root", true, 0755);
        assert(p->root_fd >= 0);
}

static void place_tidy(Place *p, const char *keep) {
        (void) unlinkat(p->fd, "archive", 0);
        ASSERT_OK(remove_tree_at(p->fd, keep));
}

static const TarOptions copy_options = { .flags = TAR_SET_ID | TAR_FIFOS | TAR_DIRECTORIES,
                                         .uid = (uid_t) -1,
                                         .gid = (gid_t) -1,
                                         .limits = TAR_LIMITS_COPY };

TEST(there_and_back) {
        static const char make[] =
                        "cd root; mkdir -p dir/sub shut; echo text >dir/file; chmod 4751 dir/file\n"
                        "ln dir/file hard; ln -s dir/file link; mkfifo fifo; : >empty\n"
                        "long=$(printf 'n%.0s' {1..200}); echo l >$long; mkdir $long.d; echo m >$long.d/$long; ln -s "
                        "$long.d/$long longlink; ln $long longhard; ln -s x $long.link; ln $long.link $long.hardlink\n"
                        "echo u >$'F\\u0151'; echo v >$'F\\u0151'$long; echo b >$'bad\\xff'; echo c >$'bad\\xfe'$long; echo n >$'line\\nbreak'\n"
                        "ln $'bad\\xfe'$long $'bad\\xfd'; ln -s $'to\\xff' badlink; ln -s $'to\\xff'$long longbadlink\n"
                        "head -c 33000 /dev/urandom >larger; head -c 3000000 /dev/urandom >large\n"
                        "for n in 98 99 100 101; do echo $n >$(printf \"%0${n}d\" 0); done\n"
                        "touch -d @-5 early; touch -d @100000000000 late; echo s >shut/file; chmod 500 shut; touch -d @1000 dir dir/file shut";
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        TarResult packed, unpacked;
        Place p;

        place_make(&p);
        ASSERT_EQ(shell(&p, make), 0);
        if (pack_root(&p, &packed, &fault) < 0)
                fail_msg("%s", fault.message);
        place_remake(&p, "original");
        if (unpack_root(&p, &copy_options, &unpacked, &fault) < 0)
                fail_msg("%s", fault.message);
        ASSERT_EQ(unpacked.n_entries, packed.n_entries);
        ASSERT_EQ(unpacked.n_bytes, packed.n_bytes);
        ASSERT_EQ(shell(&p, "diff <" LISTING("original") " <" LISTING("root") " && test -p root/fifo"), 0);

        /* and others understand it */
        ASSERT_EQ(shell(&p,
                        "mkdir theirs && tar xpf archive -C theirs 2>errors; if grep -v -e hdrcharset -e 'time stamp' errors; then exit 1; fi; "
                        "diff <" LISTING("original") " <" LISTING("theirs") "; rm -r theirs errors"),
                  0);
        place_tidy(&p, "original");
        place_done(&p);
}

/* Holes are neither packed nor filled, and their file counts as large as it is. */
TEST(holes_there_and_back) {
        static const char make[] =
                        "cd root; truncate -s 8G all; truncate -s 300M some\n"
                        "for at in 0 7 1000 4000; do echo $at | dd of=some bs=64k seek=$at conv=notrunc status=none; done\n"
                        "cp --sparse=always some $(printf 'n%.0s' {1..200}); truncate -s 1M end; echo x >>end\n"
                        "truncate -s 1M begin; head -c 70000 /dev/urandom | dd of=begin conv=notrunc status=none";
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        TarResult packed, unpacked;
        Place p;

        place_make(&p);
        ASSERT_EQ(shell(&p, make), 0);
        if (shell(&p, "test $(du -k root | cut -f1) -lt 10000") != 0)
                skip(); /* no holes here */
        ASSERT_OK(pack_root(&p, &packed, &fault));
        ASSERT_TRUE(packed.n_packed < 2 * MIB);
        place_remake(&p, "original");
        if (unpack_root(&p, &copy_options, &unpacked, &fault) < 0)
                fail_msg("%s", fault.message);
        ASSERT_EQ(unpacked.n_bytes, packed.n_bytes);
        ASSERT_EQ(shell(&p, "test $(du -k root | cut -f1) -lt 10000"), 0);
        ASSERT_EQ(shell(&p,
                        "for f in original/[!a]*; do cmp $f root/${f#*/}; done; stat -c %s root/all | grep -qx 8589934592"),
                  0);
        ASSERT_EQ(shell(&p,
                        "mkdir theirs; tar xf archive -C theirs; cmp theirs/some root/some; stat -c %s theirs/all | grep -qx 8589934592; rm -r theirs"),
                  0);
        place_tidy(&p, "original");
        place_done(&p);
}

TEST(one_file) {
        _cleanup_close_ int fd = -EBADF, out = memfd_create("tar", MFD_CLOEXEC), null = -EBADF;
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_free_ char *text = NULL;
        TarResult result;
        Place p;

        place_make(&p);
        fd = openat(p.fd, "victim", O_RDONLY | O_CLOEXEC);
        ASSERT_OK(tar_pack(fd, "other", out, NULL, NULL, &result, &fault));
        ASSERT_EQ(result.n_entries, 1);
        ASSERT_EQ(result.n_packed, 2048);
        ASSERT_EQ(lseek(out, 0, SEEK_SET), 0);
        ASSERT_OK(tar_unpack(out, p.root_fd, &copy_options, &result, &fault));
        ASSERT_OK(read_file_at(p.root_fd, "other", 100, &text, NULL));
        ASSERT_STREQ(text, "safe");

        null = open("/dev/null", O_RDONLY | O_CLOEXEC);
        ASSERT_EQ(tar_pack(null, "null", out, NULL, NULL, &result, &fault), -EINVAL);
        ASSERT_FAULT(fault, FAULT_INVALID_ARGS,
                     "Cannot pack 'null': it is neither a directory nor a regular file.");
        place_done(&p);
}

TEST(nobody_reads) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        TarResult result;
        int fds[2];
        Place p;

        place_make(&p);
        ASSERT_EQ(shell(&p, "head -c 1M /dev/zero >root/file"), 0);
        assert(pipe2(fds, O_CLOEXEC) >= 0);
        (void) signal(SIGPIPE, SIG_IGN);
        close(fds[0]);
        ASSERT_EQ(tar_pack(p.root_fd, "root", fds[1], NULL, NULL, &result, &fault), -EPIPE);
        close(fds[1]);
        place_done(&p);
}

/* A copy onto a tree that is there. */
TEST(copy_over) {
        TarOptions options = copy_options;
        _cleanup_(fault_done) Fault fault = FAULT_NULL, refused = FAULT_NULL;
        _cleanup_(tar_done) Tar t = {}, out = {};
        _cleanup_free_ char *text = NULL;
        TarResult result;
        int fd;
        Place p;

        place_make(&p);
        options.flags = TAR_FOLLOW;
        ASSERT_EQ(shell(&p,
                        "cd root; mkdir -m 700 usr usr/bin kept; ln -s usr/bin bin; ln -s ../.. out; echo old >usr/bin/x; ln -s nowhere file"),
                  0);
        tar_header(&t, "./", '5', 0777, 1234, 0, NULL);
        tar_header(&t, "kept/", '5', 0777, 1234, 0, NULL);
        tar_header(&t, "bin/", '5', 0777, 1234, 0, NULL);
        tar_file(&t, "bin/x", "new");
        tar_file(&t, "file", "file");
        tar_header(&t, "suid", '0', 06755, 1234, 0, NULL);
        tar_header(&t, "fifo", '6', 0600, 1234, 0, NULL);
        tar_header(&t, "far", '0', 0644, 7654321, 0, NULL); /* owners do not matter */
        tar_end(&t);
        fd = memfd_from("tar", t.data, t.n);
        if (tar_unpack(fd, p.root_fd, &options, &result, &fault) < 0)
                fail_msg("%s", fault.message);
        close(fd);
        ASSERT_EQ(result.n_skipped, 1);
        ASSERT_EQ(shell(&p,
                        "cd root; test -L bin; test \"$(cat usr/bin/x)\" = new; test ! -L file; stat -c '%a %u' . kept usr/bin suid | "
                        "diff - <(printf '755 %s\\n700 %s\\n700 %s\\n755 %s\\n' $UID $UID $UID $UID)"),
                  0);

        tar_file(&out, "out/victim", "bad");
        tar_end(&out);
        fd = memfd_from("tar", out.data, out.n);
        ASSERT_EQ(tar_unpack(fd, p.root_fd, &options, &result, &refused), -EINVAL);
        ASSERT_STREQ(refused.message,
                     "The archive's entry 'out/victim' leads through a symbolic link or out of the tree.");
        close(fd);
        place_done(&p);
}

TEST(owner_of_the_options) {
        TarOptions options = { .flags = TAR_FOLLOW, .uid = 1234, .gid = 4321, .limits = TAR_LIMITS_COPY };
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_(tar_done) Tar t = {};
        TarResult result;
        int fd;
        Place p;

        if (getuid() != 0)
                skip();
        place_make(&p);
        tar_file(&t, "new/dir/file", "x");
        tar_header(&t, "other/", '5', 0755, 0, 0, NULL);
        tar_header(&t, "link", '2', 0777, 0, 0, "x");
        tar_end(&t);
        fd = memfd_from("tar", t.data, t.n);
        ASSERT_OK(tar_unpack(fd, p.root_fd, &options, &result, &fault));
        close(fd);
        ASSERT_EQ(shell(&p,
                        "cd root; stat -c '%u:%g' new new/dir new/dir/file other link | uniq | grep -qx 1234:4321"),
                  0);
        place_done(&p);
}

/* Beyond the limit directories are unpacked all the same. */
TEST(times_of_directories) {
        TarOptions options = copy_options;
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_(tar_done) Tar t = {};
        TarResult result;
        int fd;
        Place p;

        place_make(&p);
        options.limits.directories_max = 1;
        tar_header(&t, "a", '5', 0500, 0, 0, NULL);
        tar_file(&t, "a/x", "x");
        tar_header(&t, "b", '5', 0700, 0, 0, NULL);
        tar_file(&t, "b/x", "x");
        tar_end(&t);
        fd = memfd_from("tar", t.data, t.n);
        ASSERT_OK(tar_unpack(fd, p.root_fd, &options, &result, &fault));
        close(fd);
        ASSERT_EQ(shell(&p,
                        "cd root; test \"$(stat -c '%a %Y' a)\" = '500 1000000000'; test $(stat -c %a b) = 700; test $(stat -c %Y b) -gt 1000000000"),
                  0);
        place_done(&p);
}

TEST(depth) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        TarResult result;
        Place p;

        place_make(&p);
        ASSERT_EQ(shell(&p, "cd root; for ((i = 0; i < 255; i++)); do mkdir d; cd -P d; done; echo x >x"),
                  0);
        ASSERT_OK(pack_root(&p, &result, &fault));
        ASSERT_EQ(shell(&p, "cd root; for ((i = 0; i < 255; i++)); do cd -P d; done; mkdir e"), 0);
        ASSERT_EQ(pack_root(&p, &result, &fault), -E2BIG);
        ASSERT_STREQ(fault.message, "The tree is more than 256 directories deep.");
        (void) unlinkat(p.fd, "archive", 0);
        place_done(&p);
}

/* More pieces, more links than we keep count of: larger, but right. */
TEST(many_pieces) {
        _cleanup_close_ int fd = -EBADF, back = -EBADF;
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        TarResult packed, unpacked;
        struct stat st;
        Place p;

        place_make(&p);
        fd = openat(p.root_fd, "f", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        for (unsigned i = 0; i < TAR_SPARSE_MAX + 10; i++)
                assert(pwrite(fd, "x", 1, (off_t) i * 16384) == 1);
        assert(ftruncate(fd, (off_t) (TAR_SPARSE_MAX + 20) * 16384) >= 0);
        ASSERT_OK(pack_root(&p, &packed, &fault));
        place_remake(&p, "original");
        ASSERT_OK(unpack_root(&p, &copy_options, &unpacked, &fault));
        ASSERT_EQ(shell(&p, "cmp original/f root/f"), 0);
        ASSERT_OK(fstatat(p.root_fd, "f", &st, 0));
        ASSERT_TRUE(st.st_blocks * 512 < st.st_size);
        place_tidy(&p, "original");
        place_done(&p);
}

/* Of more than TAR_LINKS_MAX files with two names the last are packed twice. */
TEST(many_links) {
        _cleanup_close_ int dir_fd = -EBADF, output = open("/dev/null", O_WRONLY | O_CLOEXEC);
        char path[] = "/dev/shm/templates-tar-XXXXXX"; /* elsewhere it takes minutes */
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        TarResult packed;

        if (!mkdtemp(path))
                skip();
        dir_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        assert(mkdirat(dir_fd, "a", 0700) >= 0 && mkdirat(dir_fd, "b", 0700) >= 0);
        for (unsigned i = 0; i < TAR_LINKS_MAX + 3; i++) {
                char name[2][16];
                int fd;

                (void) snprintf(name[0], sizeof(name[0]), "a/%u", i);
                (void) snprintf(name[1], sizeof(name[1]), "b/%u", i);
                fd = openat(dir_fd, name[0], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
                assert(fd >= 0 && ftruncate(fd, 1) >= 0 && linkat(dir_fd, name[0], dir_fd, name[1], 0) >= 0);
                close(fd);
        }
        ASSERT_OK(tar_pack(dir_fd, "root", output, NULL, NULL, &packed, &fault));
        ASSERT_EQ(packed.n_entries, 3 + 2 * (TAR_LINKS_MAX + 3));
        ASSERT_EQ(packed.n_bytes, TAR_LINKS_MAX + 2 * 3);
        ASSERT_OK(remove_tree_at(AT_FDCWD, path));
}
