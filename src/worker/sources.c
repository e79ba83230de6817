/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * sources.list(5) and its deb822 style are read as far as an official archive uses them: types, URIs,
 * suites, components and Signed-By with a file name. What else an entry says (architectures, trust,
 * languages) is dropped, an entry that is disabled or comes from a medium or the local disk is left out.
 */

#include <dirent.h>

#include "basic/files.h"
#include "basic/log.h"
#include "basic/strings.h"
#include "worker/sources.h"

#define SOURCES_FILE_MAX (1 * MIB)

/* One entry, in either style. */
typedef struct Entry {
        char **types;
        char **uris;
        char **suites;
        char **components;
        char *signed_by;
        bool disabled;
} Entry;

static void entry_done(Entry *e) {
        strv_free(e->types);
        strv_free(e->uris);
        strv_free(e->suites);
        strv_free(e->components);
        free(e->signed_by);
        *e = (Entry) {};
}

/* Components of Debian and its relatives; the archives of third parties have names of their own ("stable",
 * "contrib-x"). */
static bool component_is_ours(const char *s) {
        static const char *const names[] = { "main",     "contrib",    "non-free",   "non-free-firmware",
                                             "universe", "restricted", "multiverse", NULL };

        return strv_contains((char *const *) names, s);
}

static bool uri_is_remote(const char *s) {
        return startswith(s, "http://") || startswith(s, "https://");
}

/* The suite in the wanted release: "bookworm-updates" -> "trixie-updates"; NULL when it is none of the
 * host's release. */
static int translate_suite(const char *s, const char *codename, const char *suite, char **ret) {
        static const char *const suffixes[] = { "", "-updates", "-security", "/updates" };
        const char *rest = startswith(s, codename);

        for (size_t i = 0; rest && i < ELEMENTSOF(suffixes); i++)
                if (streq(rest, suffixes[i])) {
                        *ret = strjoin(suite, rest);
                        return *ret ? 0 : -ENOMEM;
                }
        return -ENOENT;
}

/* Adds one line, once. */
static int add_line(const char *uri, const char *suite, const Entry *e, char ***lines) {
        _cleanup_free_ char *line = NULL;

        line = e->signed_by ? strjoin("deb [signed-by=", e->signed_by, "] ", uri, " ", suite)
                            : strjoin("deb ", uri, " ", suite);
        if (!line)
                return -ENOMEM;

        STRV_FOREACH(c, e->components) {
                char *longer;

                if (!component_is_ours(*c))
                        continue;
                longer = strjoin(line, " ", *c);
                if (!longer)
                        return -ENOMEM;
                free(line);
                line = longer;
        }

        if (strv_contains(*lines, line))
                return 0;
        return strv_extend(lines, line);
}

static int entry_add(const Entry *e, const char *codename, const char *suite, char ***lines) {
        bool ours = false;
        int r;

        STRV_FOREACH(c, e->components)
                ours = ours || component_is_ours(*c);
        if (e->disabled || !ours || !strv_contains(e->types, "deb"))
                return 0;

        STRV_FOREACH(uri, e->uris) {
                if (!uri_is_remote(*uri))
                        continue;
                STRV_FOREACH(s, e->suites) {
                        _cleanup_free_ char *translated = NULL;

                        r = translate_suite(*s, codename, suite, &translated);
                        if (r == -ENOENT)
                                continue;
                        if (r >= 0)
                                r = add_line(*uri, translated, e, lines);
                        if (r < 0)
                                return r;
                }
        }
        return 0;
}

/* "[ arch=amd64 signed-by=/x ]", the text between the brackets. */
static int parse_options(char *text, Entry *e) {
        _cleanup_strv_ char **words = strv_split(text, " \t");

        STRV_FOREACH(w, words) {
                const char *path = startswith(*w, "signed-by=");

                if (path && *path == '/' && free_and_strdup(&e->signed_by, path) < 0)
                        return -ENOMEM;
        }
        return 0;
}

/* One line of the old style; changed while parsing. 1: an entry, 0: none. */
static int parse_line(char *line, Entry *e) {
        _cleanup_strv_ char **words = NULL;
        char *rest, *close;

        line[strcspn(line, "#")] = '\0';
        line += strspn(line, " \t");
        if (!startswith(line, "deb ") && !startswith(line, "deb\t"))
                return 0;

        rest = line + 4;
        rest += strspn(rest, " \t");
        if (*rest == '[') {
                close = strchr(rest, ']');
                if (!close)
                        return 0;
                *close = '\0';
                if (parse_options(rest + 1, e) < 0)
                        return -ENOMEM;
                rest = close + 1;
        }

        words = strv_split(rest, " \t\r");
        if (strv_length(words) < 3)
                return 0;
        if (strv_extend(&e->types, "deb") < 0 || strv_extend(&e->uris, words[0]) < 0 ||
            strv_extend(&e->suites, words[1]) < 0)
                return -ENOMEM;
        for (char **w = words + 2; *w; w++)
                if (strv_extend(&e->components, *w) < 0)
                        return -ENOMEM;
        return 1;
}

static int add_list(char *text, const char *codename, const char *suite, char ***lines) {
        int r;

        for (char *line; (line = strsep(&text, "\n"));) {
                _cleanup_(entry_done) Entry e = {};

                r = parse_line(line, &e);
                if (r > 0)
                        r = entry_add(&e, codename, suite, lines);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* Puts the words of one field of a stanza where they belong. value: with its continuation lines. */
static int stanza_field(Entry *e, const char *name, const char *value) {
        const struct {
                const char *name;
                char ***words;
        } fields[] = {
                { "Types", &e->types },
                { "URIs", &e->uris },
                { "Suites", &e->suites },
                { "Components", &e->components },
        };

        for (size_t i = 0; i < ELEMENTSOF(fields); i++)
                if (strcasecmp(name, fields[i].name) == 0) {
                        strv_free(*fields[i].words);
                        *fields[i].words = strv_split(value, " \t\r\n");
                        return 0;
                }

        if (strcasecmp(name, "Enabled") == 0)
                e->disabled = parse_boolean(value) == 0;
        else if (strcasecmp(name, "Signed-By") == 0 && *value == '/' && !strpbrk(value, " \t\n"))
                return free_and_strdup(&e->signed_by, value);
        return 0;
}

/* Ends the field being read, if any. */
static int field_flush(Entry *e, char **name, char **value) {
        size_t n;
        int r = 0;

        if (*name && *value) {
                n = strlen(*value);
                while (n > 0 && strchr(" \t\r\n", (*value)[n - 1]))
                        (*value)[--n] = '\0';
                r = stanza_field(e, *name, *value);
        }
        free(*name);
        free(*value);
        *name = *value = NULL;
        return r;
}

/* A line of a stanza: a field or the continuation of one. */
static int stanza_line(Entry *e, char *line, char **name, char **value) {
        char *colon, *longer;
        int r;

        if (*line == '#')
                return 0;
        if (*line == ' ' || *line == '\t') {
                longer = *value ? strjoin(*value, "\n", line + strspn(line, " \t")) : NULL;
                if (*value && !longer)
                        return -ENOMEM;
                free(*value);
                *value = longer;
                return 0;
        }

        r = field_flush(e, name, value);
        colon = strchr(line, ':');
        if (r < 0 || !colon)
                return r;

        *colon = '\0';
        *name = strdup(line);
        *value = strdup(colon + 1 + strspn(colon + 1, " \t"));
        return *name && *value ? 0 : -ENOMEM;
}

static int add_stanzas(char *text, const char *codename, const char *suite, char ***lines) {
        _cleanup_free_ char *name = NULL, *value = NULL;
        _cleanup_(entry_done) Entry e = {};
        int r = 0;

        for (char *line; r >= 0 && (line = strsep(&text, "\n"));) {
                if (line[strspn(line, " \t\r")] != '\0') {
                        r = stanza_line(&e, line, &name, &value);
                        continue;
                }
                r = field_flush(&e, &name, &value);
                if (r >= 0)
                        r = entry_add(&e, codename, suite, lines);
                entry_done(&e);
        }

        if (r >= 0)
                r = field_flush(&e, &name, &value);
        if (r >= 0)
                r = entry_add(&e, codename, suite, lines);
        return r;
}

int sources_add_text(const char *text, bool deb822, const char *codename, const char *suite, char ***lines) {
        _cleanup_free_ char *copy = strdup(text);

        if (!copy)
                return -ENOMEM;
        return deb822 ? add_stanzas(copy, codename, suite, lines) : add_list(copy, codename, suite, lines);
}

int sources_codename(const char *os_release, char **ret) {
        _cleanup_strv_ char **lines = strv_split(os_release, "\n");

        STRV_FOREACH(line, lines) {
                const char *value = startswith(*line, "VERSION_CODENAME=");
                char *name;

                if (!value)
                        continue;
                value += strspn(value, "\"'");
                name = strndup(value, strcspn(value, "\"'"));
                if (!name)
                        return -ENOMEM;
                if (!name_is_valid(name)) {
                        free(name);
                        continue;
                }
                *ret = name;
                return 0;
        }
        return -ENOENT;
}

static int compare_names(const void *a, const void *b) {
        return strcmp(*(char *const *) a, *(char *const *) b);
}

/* Names in a directory, sorted. A missing directory has none. */
static int list_names(const char *path, char ***ret) {
        _cleanup_strv_ char **names = NULL;
        struct dirent *de;
        DIR *d;
        int r = 0;

        d = opendir(path);
        if (!d)
                return errno == ENOENT ? 0 : -errno;
        while (r >= 0 && (de = readdir(d)))
                if (de->d_name[0] != '.')
                        r = strv_extend(&names, de->d_name);
        closedir(d);
        if (r < 0)
                return r;

        if (names)
                qsort(names, strv_length(names), sizeof(char *), compare_names);
        *ret = TAKE_PTR(names);
        return 0;
}

static int add_file(const char *path, const char *codename, const char *suite, char ***lines) {
        _cleanup_free_ char *text = NULL;
        int r;

        r = read_file_at(AT_FDCWD, path, SOURCES_FILE_MAX, &text, /* ret_n= */ NULL);
        if (r == -ENOENT)
                return 0;
        if (r == -ENOMEM)
                return r;
        if (r < 0) {
                log_warning_errno(r, "Failed to read '%s', ignoring: %m", path);
                return 0;
        }
        return sources_add_text(text, endswith(path, ".sources"), codename, suite, lines);
}

/* sources.list, then sources.list.d in the order of names. */
static int add_files(const char *root, const char *codename, const char *suite, char ***lines) {
        _cleanup_free_ char *list = NULL, *directory = NULL;
        _cleanup_strv_ char **names = NULL;
        int r;

        list = strjoin(root, "/etc/apt/sources.list");
        directory = strjoin(root, "/etc/apt/sources.list.d");
        if (!list || !directory)
                return -ENOMEM;

        r = add_file(list, codename, suite, lines);
        if (r >= 0)
                r = list_names(directory, &names);
        if (r < 0)
                return r;

        STRV_FOREACH(name, names) {
                _cleanup_free_ char *path = NULL;

                if (!endswith(*name, ".list") && !endswith(*name, ".sources"))
                        continue;
                path = strjoin(directory, "/", *name);
                if (!path)
                        return -ENOMEM;
                r = add_file(path, codename, suite, lines);
                if (r < 0)
                        return r;
        }
        return 0;
}

int sources_of_host(const char *root, const char *suite, char ***ret_lines, char **ret_suite,
                    Fault *reterr) {
        _cleanup_free_ char *path = NULL, *text = NULL, *codename = NULL, *wanted = NULL;
        _cleanup_strv_ char **lines = NULL;
        int r;

        path = strjoin(root, "/etc/os-release");
        r = path ? read_file_at(AT_FDCWD, path, SOURCES_FILE_MAX, &text, /* ret_n= */ NULL) : -ENOMEM;
        if (r >= 0)
                r = sources_codename(text, &codename);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to find the host's release in '%s'",
                                       strempty(path));

        wanted = strdup(isempty(suite) ? codename : suite);
        r = wanted ? add_files(root, codename, wanted, &lines) : -ENOMEM;
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to read the apt sources");
        if (!lines)
                return fault_set(reterr, FAULT_NOT_FOUND,
                                 "No apt source of '%s' with http or https in %s/etc/apt.", codename, root);

        *ret_lines = TAKE_PTR(lines);
        *ret_suite = TAKE_PTR(wanted);
        return 0;
}
