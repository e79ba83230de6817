/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include <sys/stat.h>

#include "basic/fd.h"
#include "basic/files.h"
#include "basic/ini.h"
#include "basic/limits.h"
#include "basic/strings.h"
#include "daemon/core/template-file.h"

static bool text_is_valid(const char *s) {
        return strlen(s) <= TEMPLATE_TEXT_LEN_MAX && utf8_is_valid(s, strlen(s));
}

/* As apt spells packages, perhaps with version or architecture: nothing that could be an option or a path.
 */
static bool package_is_valid(const char *s) {
        return *s != '-' && *s != '.' && strlen(s) <= TEMPLATE_TEXT_LEN_MAX &&
               s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.:=~-_")] == '\0';
}

static bool pattern_is_valid(const char *s) {
        return *s == '/' && strlen(s) <= TEMPLATE_TEXT_LEN_MAX && utf8_is_valid(s, strlen(s));
}

static bool compression_is_valid(const char *s) {
        return streq(s, "none") || streq(s, "lz4") || streq(s, "lz4hc");
}

/* As useradd takes them. */
static bool user_is_valid(const char *s) {
        return ((*s >= 'a' && *s <= 'z') || *s == '_') && strlen(s) <= 32 &&
               s[strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_-")] == '\0';
}

static bool env_is_valid(const char *s) {
        const char *eq = strchr(s, '=');

        return eq && eq != s && strlen(s) <= ENV_ENTRY_LEN_MAX && utf8_is_valid(s, strlen(s));
}

static int parse_string(const IniKey *k, const char *value, void *field) {
        return k->valid(value) ? free_and_strdup(field, value) : -EINVAL;
}

/* Words, added to those of earlier lines. */
static int parse_list(const IniKey *k, const char *value, void *field) {
        _cleanup_strv_ char **words = strv_split(value, " \t");
        char ***list = field;
        int r;

        if (!words)
                return -ENOMEM;
        STRV_FOREACH(w, words) {
                if (!k->valid(*w))
                        return -EINVAL;
                if (strv_length(*list) >= k->max)
                        return -ERANGE;
                if (strv_contains(*list, *w))
                        continue;
                r = strv_extend(list, *w);
                if (r < 0)
                        return r;
        }
        return 0;
}

/* One "NAME=value" a line: values may have blanks. */
static int parse_env(const IniKey *k, const char *value, void *field) {
        char ***list = field;

        if (!k->valid(value))
                return -EINVAL;
        if (strv_length(*list) >= k->max)
                return -ERANGE;
        return strv_extend(list, value);
}

#define FIELD(f) offsetof(TemplateFile, f)

static const IniKey template_keys[] = {
        { "Template", "Description", parse_string, FIELD(description), .valid = text_is_valid,
          .expected = "text" },
        { "Template", "Alias", parse_list, FIELD(aliases), 0, TEMPLATE_ALIASES_MAX, name_is_valid,
          "names of templates" },
        { "Packages", "Suite", parse_string, FIELD(suite), .valid = name_is_valid,
          .expected = "the name of a release" },
        { "Packages", "Variant", parse_string, FIELD(variant), .valid = name_is_valid,
          .expected = "a variant of mmdebstrap" },
        { "Packages", "Packages", parse_list, FIELD(packages), 0, TEMPLATE_PACKAGES_MAX, package_is_valid,
          "names of packages" },
        { "Packages", "ExcludePaths", parse_list, FIELD(exclude_paths), 0, TEMPLATE_PATHS_MAX,
          pattern_is_valid, "absolute patterns" },
        { "Packages", "IncludePaths", parse_list, FIELD(include_paths), 0, TEMPLATE_PATHS_MAX,
          pattern_is_valid, "absolute patterns" },
        { "Image", "Compression", parse_string, FIELD(compression), .valid = compression_is_valid,
          .expected = "none, lz4 or lz4hc" },
        { "Image", "Hostname", parse_string, FIELD(hostname), .valid = name_is_valid,
          .expected = "a host name" },
        { "Capsule", "DefaultUser", parse_string, FIELD(default_user), .valid = user_is_valid,
          .expected = "a user name" },
        { "Capsule", "Environment", parse_env, FIELD(env), 0, ENV_MAX, env_is_valid, "NAME=value" },
        { "Capsule", "DefaultVCPUs", ini_parse_u32, FIELD(default_vcpus), VCPUS_MIN, VCPUS_MAX, NULL,
          "a number from 1 to 32" },
        { "Capsule", "DefaultMemory", ini_parse_size, FIELD(default_memory_bytes), MEMORY_BYTES_MIN,
          MEMORY_BYTES_MAX, NULL, "a size from 128M to 256G" },
};

void template_file_done(TemplateFile *f) {
        free(f->description);
        strv_free(f->aliases);
        free(f->suite);
        free(f->variant);
        strv_free(f->packages);
        strv_free(f->exclude_paths);
        strv_free(f->include_paths);
        free(f->compression);
        free(f->hostname);
        free(f->default_user);
        strv_free(f->env);
        *f = (TemplateFile) {};
}

static int assign(TemplateFile *f, const char *name, const IniLine *line, Fault *reterr) {
        bool section_known;
        const IniKey *k = ini_find(template_keys, ELEMENTSOF(template_keys), line, &section_known);
        int r;

        if (!section_known)
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s:%u: There is no section [%.64s].", name,
                                 line->number, line->section);
        if (!k)
                return fault_set(reterr, FAULT_INVALID_ARGS,
                                 "%s:%u: There is no key %.64s= in section [%s].", name, line->number,
                                 line->name, line->section);

        r = *line->value ? k->parse(k, line->value, (char *) f + k->offset) : 0;
        if (r == -ENOMEM)
                return fault_set_errno(reterr, r, "Failed to read '%s'", name);
        if (r < 0)
                return fault_set(reterr, FAULT_INVALID_ARGS, "%s:%u: %s: expected %s%s.", name, line->number,
                                 line->name, k->expected,
                                 r == -ERANGE && k->parse == parse_list ? ", not that many" : "");
        return 0;
}

int template_file_parse(const char *name, char *text, TemplateFile *ret, Fault *reterr) {
        _cleanup_(template_file_done) TemplateFile f = {};
        IniLine line = {};
        int r;

        while ((r = ini_next(&text, &line)) != 0) {
                if (r < 0)
                        return fault_set(reterr, FAULT_INVALID_ARGS,
                                         "%s:%u: expected NAME=VALUE or [SECTION].", name, line.number);
                r = assign(&f, name, &line, reterr);
                if (r < 0)
                        return r;
        }

        *ret = f;
        f = (TemplateFile) {};
        return 0;
}

/* -ENOENT, without a fault, when it is not there. */
static int load_one(const char *path, TemplateFile *ret, Fault *reterr) {
        _cleanup_close_ int fd = -EBADF;
        _cleanup_free_ char *text = NULL;
        struct stat st;
        int r;

        fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (fd < 0 && errno == ENOENT)
                return -ENOENT;
        if (fd < 0 || fstat(fd, &st) < 0)
                return fault_set_errno(reterr, errno, "Failed to read '%s'", path);
        if (!S_ISREG(st.st_mode))
                return fault_set(reterr, FAULT_NOT_FOUND, "The template is masked: '%s' is no regular file.",
                                 path);
        if (st.st_mode & S_IWOTH)
                return fault_set(reterr, FAULT_ACCESS_DENIED,
                                 "'%s' may be written by everybody; run: chmod o-w %s", path, path);

        r = read_fd(fd, TEMPLATE_FILE_MAX, &text, /* ret_n= */ NULL);
        if (r < 0)
                return fault_set_errno(reterr, r, "Failed to read '%s'", path);
        return template_file_parse(path, text, ret, reterr);
}

int template_file_load(const char *const *dirs, const char *template, TemplateFile *ret, Fault *reterr) {
        _cleanup_free_ char *looked = NULL;
        int r;

        if (!name_is_valid(template))
                return fault_set(
                                reterr, FAULT_INVALID_ARGS,
                                "The name of a template has 1 to 64 of a-z A-Z 0-9 . _ - and begins with a letter or digit.");

        for (const char *const *dir = dirs; *dir; dir++) {
                _cleanup_free_ char *path = strjoin(*dir, "/", template, ".template");
                char *longer;

                if (!path)
                        return fault_set_errno(reterr, -ENOMEM, "Failed to read '%s'", template);
                r = load_one(path, ret, reterr);
                if (r != -ENOENT || (reterr && fault_is_set(reterr)))
                        return r;

                longer = looked ? strjoin(looked, " and ", *dir) : strdup(*dir);
                free(looked);
                looked = longer;
        }
        return fault_set(reterr, FAULT_NOT_FOUND, "There is no '%s.template' in %s.", template,
                         strempty(looked));
}
