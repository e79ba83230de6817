/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "basic/strings.h"
#include "tests/unit/test.h"
#include "worker/sources.h"

#define KEYRING "/usr/share/keyrings/debian-archive-keyring.gpg"

TEST(texts) {
        static const struct {
                const char *text;
                bool deb822;
                const char *suite;
                const char *lines[4];
        } cases[] = {
                { "deb http://deb.debian.org/debian bookworm main contrib\n",
                  false,
                  "bookworm",
                  { "deb http://deb.debian.org/debian bookworm main contrib" } },
                { "  deb [ arch=amd64 signed-by=" KEYRING
                  " ]  https://x/debian   bookworm-security\tmain # comment\n",
                  false,
                  "bookworm",
                  { "deb [signed-by=" KEYRING "] https://x/debian bookworm-security main" } },
                { "deb-src http://x bookworm main\n#deb http://x bookworm main\n\ndeb http://x bookworm\ndeb\n",
                  false,
                  "bookworm",
                  {} },
                /* third parties: other suites, other components */
                { "deb https://packages.cloud.google.com/apt cloud-sdk-bookworm main\n"
                  "deb https://download.docker.com/linux/debian bookworm stable\n"
                  "deb http://apt.postgresql.org/pub/repos/apt bookworm-pgdg main\n",
                  false,
                  "bookworm",
                  {} },
                { "deb cdrom:[Debian]/ bookworm main\ndeb file:/srv/mirror bookworm main\n",
                  false,
                  "bookworm",
                  {} },
                { "deb http://x bookworm main\ndeb http://x bookworm-updates main\ndeb http://x bookworm main\n",
                  false,
                  "trixie",
                  { "deb http://x trixie main", "deb http://x trixie-updates main" } },
                { "deb [ broken http://x bookworm main\n", false, "bookworm", {} },
                { "Types: deb\n# comment\nURIs: http://deb.debian.org/debian\nSuites: bookworm bookworm-updates\nComponents: main\n"
                  "Signed-By: " KEYRING "\n\n"
                  "Types: deb\nURIs: http://deb.debian.org/debian-security\nSuites: bookworm-security\nComponents: main\n",
                  true,
                  "bookworm",
                  { "deb [signed-by=" KEYRING "] http://deb.debian.org/debian bookworm main",
                    "deb [signed-by=" KEYRING "] http://deb.debian.org/debian bookworm-updates main",
                    "deb http://deb.debian.org/debian-security bookworm-security main" } },
                { "Types: deb\nURIs: https://deb.nodesource.com/node_20.x\nSuites: nodistro\nComponents: main\n",
                  true,
                  "bookworm",
                  {} },
                { "Enabled: no\nTypes: deb\nURIs: http://x\nSuites: bookworm\nComponents: main\n",
                  true,
                  "bookworm",
                  {} },
                { "Types: deb-src\nURIs: http://x\nSuites: bookworm\nComponents: main\n",
                  true,
                  "bookworm",
                  {} },
                /* continuation lines; a key in the file itself is not a path */
                { "types: deb\r\nuris:\n http://x\n http://y\nsuites: bookworm\ncomponents: main stable\nSigned-By:\n -----BEGIN-----\n .\n x",
                  true,
                  "bookworm",
                  { "deb http://x bookworm main", "deb http://y bookworm main" } },
                { ":\n:x\n \n\n", true, "bookworm", {} },
                { "", true, "bookworm", {} },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_strv_ char **lines = NULL;
                size_t n = 0;

                ASSERT_EQ(sources_add_text(cases[i].text, cases[i].deb822, "bookworm", cases[i].suite,
                                           &lines),
                          0);
                for (; cases[i].lines[n]; n++) {
                        ASSERT_TRUE(n < strv_length(lines));
                        ASSERT_STREQ(lines[n], cases[i].lines[n]);
                }
                if (strv_length(lines) != n)
                        fail_msg("case %zu: %zu lines, first '%s'", i, strv_length(lines),
                                 lines ? lines[0] : "");
        }
}

TEST(codename) {
        static const struct {
                const char *text, *name;
        } cases[] = {
                { "ID=debian\nVERSION_CODENAME=bookworm\n", "bookworm" },
                { "VERSION_CODENAME=\"noble\"\nID=ubuntu", "noble" },
                { "VERSION_CODENAME='x y'\n", NULL },
                { "VERSION_CODENAME=\n", NULL },
                { "ID=arch\n", NULL },
        };

        for (size_t i = 0; i < ELEMENTSOF(cases); i++) {
                _cleanup_free_ char *name = NULL;

                ASSERT_EQ(sources_codename(cases[i].text, &name), cases[i].name ? 0 : -ENOENT);
                if (cases[i].name)
                        ASSERT_STREQ(name, cases[i].name);
        }
}
