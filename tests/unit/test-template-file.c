/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "daemon/core/template-file.h"
#include "tests/unit/test.h"

static int parse(const char *text, TemplateFile *ret, Fault *fault) {
        _cleanup_free_ char *copy = strdup(text);

        assert(copy);
        return template_file_parse("x", copy, ret, fault);
}

TEST(everything) {
        _cleanup_(template_file_done) TemplateFile f = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;

        ASSERT_EQ(parse("# comment\n; another\n\n[Template]\nDescription = A  test \r\nAlias=one two\nAlias=one\n[Packages]\nSuite=trixie\nVariant=minbase\n"
                        "Packages=git curl git\n  Packages = g++ libc6:amd64 bash=5.2.15-2+b7\nExcludePaths=/usr/share/doc/* /a\n"
                        "IncludePaths=/b\n[Image]\nCompression=lz4hc\nHostname=box\n[Capsule]\nDefaultUser=wrenn-user\n"
                        "Environment=A=b c = d\nEnvironment=EMPTY=\nDefaultVCPUs=2\nDefaultMemory=1G\n",
                        &f, &fault),
                  0);
        ASSERT_STREQ(f.description, "A  test");
        ASSERT_EQ(strv_length(f.aliases), 2);
        ASSERT_STREQ(f.aliases[1], "two");
        ASSERT_STREQ(f.suite, "trixie");
        ASSERT_STREQ(f.variant, "minbase");
        ASSERT_EQ(strv_length(f.packages), 5);
        ASSERT_STREQ(f.packages[4], "bash=5.2.15-2+b7");
        ASSERT_EQ(strv_length(f.exclude_paths), 2);
        ASSERT_EQ(strv_length(f.include_paths), 1);
        ASSERT_STREQ(f.compression, "lz4hc");
        ASSERT_STREQ(f.hostname, "box");
        ASSERT_STREQ(f.default_user, "wrenn-user");
        ASSERT_EQ(strv_length(f.env), 2);
        ASSERT_STREQ(f.env[0], "A=b c = d");
        ASSERT_STREQ(f.env[1], "EMPTY=");
        ASSERT_EQ(f.default_vcpus, 2);
        ASSERT_EQ(f.default_memory_bytes, GIB);
}

TEST(errors) {
        static const struct {
                const char *text, *message;
        } cases[] = {
                { "Description=x\n", "x:1: There is no section []." },
                { "[Nothing]\nA=b\n", "x:2: There is no section [Nothing]." },
                { "[Template]\nAlias=../x\n", "x:2: Alias: expected names of templates." },
                { "[Template]\nAlias=1 2 3 4 5 6 7 8 9\n",
                  "x:2: Alias: expected names of templates, not that many." },
                { "[Packages]\nPackage=x\n", "x:2: There is no key Package= in section [Packages]." },
                { "[Packages]\n\nno equals sign\n", "x:3: expected NAME=VALUE or [SECTION]." },
                { "[Packages]\nPackages=git --allow-downgrades\n",
                  "x:2: Packages: expected names of packages." },
                { "[Packages]\nPackages=./x.deb\n", "x:2: Packages: expected names of packages." },
                { "[Packages]\nPackages=a;b\n", "x:2: Packages: expected names of packages." },
                { "[Packages]\nPackages=?essential\n", "x:2: Packages: expected names of packages." },
                { "[Packages]\nSuite=../x\n", "x:2: Suite: expected the name of a release." },
                { "[Packages]\nExcludePaths=usr\n", "x:2: ExcludePaths: expected absolute patterns." },
                { "[Image]\nCompression=zstd\n", "x:2: Compression: expected none, lz4 or lz4hc." },
                { "[Capsule]\nDefaultUser=Root\n", "x:2: DefaultUser: expected a user name." },
                { "[Capsule]\nDefaultUser=-x\n", "x:2: DefaultUser: expected a user name." },
                { "[Capsule]\nEnvironment=A\n", "x:2: Environment: expected NAME=value." },
                { "[Capsule]\nDefaultVCPUs=0\n", "x:2: DefaultVCPUs: expected a number from 1 to 32." },
                { "[Capsule]\nDefaultMemory=1M\n",
                  "x:2: DefaultMemory: expected a size from 128M to 256G." },
                { "[Capsule]\nDefaultMemory=much\n",
                  "x:2: DefaultMemory: expected a size from 128M to 256G." },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_(fault_done) Fault fault = FAULT_NULL;
                TemplateFile f;

                ASSERT_EQ(parse(cases[i].text, &f, &fault), -EINVAL);
                ASSERT_STREQ(fault.message, cases[i].message);
        }
}

TEST(too_many) {
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        _cleanup_free_ char *text = strdup("[Packages]\nPackages=");
        TemplateFile f;

        for (unsigned i = 0; i <= TEMPLATE_PACKAGES_MAX; i++) {
                char *longer = asprintf_null("%s p%u", text, i);

                free(text);
                text = longer;
        }
        ASSERT_EQ(parse(text, &f, &fault), -EINVAL);
        ASSERT_STREQ(fault.message, "x:2: Packages: expected names of packages, not that many.");
}

TEST(directories) {
        char first[] = "/tmp/templates-file-XXXXXX", second[] = "/tmp/templates-file-XXXXXX";
        _cleanup_close_ int first_fd = -EBADF, second_fd = -EBADF;
        _cleanup_(fault_done) Fault missing = FAULT_NULL, world = FAULT_NULL, name = FAULT_NULL,
                                    fault = FAULT_NULL;
        _cleanup_(template_file_done) TemplateFile f = {}, g = {};

        assert(mkdtemp(first) && mkdtemp(second));
        first_fd = open(first, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        second_fd = open(second, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        const char *const dirs[] = { first, "/nonexistent", second, NULL };

        ASSERT_EQ(template_file_load(dirs, "t", &f, &missing), -ENOENT);
        ASSERT_TRUE(strstr(missing.message, "There is no 't.template' in /tmp/templates-file-") ==
                    missing.message);
        ASSERT_EQ(template_file_load(dirs, "../t", &f, &name), -EINVAL);

        ASSERT_EQ(write_file_atomic_at(second_fd, "t.template", "[Packages]\nSuite=b\n", 19, 0644), 0);
        ASSERT_EQ(template_file_load(dirs, "t", &f, &fault), 0);
        ASSERT_STREQ(f.suite, "b");
        ASSERT_EQ(write_file_atomic_at(first_fd, "t.template", "[Packages]\nSuite=a\n", 19, 0644), 0);
        ASSERT_EQ(template_file_load(dirs, "t", &g, &fault), 0);
        ASSERT_STREQ(g.suite, "a");
        ASSERT_EQ(fchmodat(first_fd, "t.template", 0666, 0), 0);
        ASSERT_EQ(template_file_load(dirs, "t", &g, &world), -EPERM);

        ASSERT_EQ(remove_tree_at(AT_FDCWD, first), 0);
        ASSERT_EQ(remove_tree_at(AT_FDCWD, second), 0);
}

/* The file that is installed. */
TEST(stock) {
        _cleanup_(template_file_done) TemplateFile f = {};
        _cleanup_(fault_done) Fault fault = FAULT_NULL;
        const char *const dirs[] = { SOURCE_DIR "/templates.d", NULL };
        static const char *const needed[] = { "bash",     "git",    "curl",     "ca-certificates",
                                              "iproute2", "procps", "hostname", "apt" };

        ASSERT_EQ(template_file_load(dirs, "minimal", &f, &fault), 0);
        ASSERT_STREQ(f.default_user, "root");
        for (size_t i = 0; i < ELEMENTSOF(needed); i++)
                ASSERT_TRUE(strv_contains(f.packages, needed[i]));
}
