/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * templates.d/<name>.template: what a template is built from, in systemd's ini style (wrenn.template(5)).
 * The administrator's file in /etc takes the place of the package's in /usr/lib. Unlike wrennd.conf a line
 * that is not understood is an error: nobody wants a template that silently lacks something.
 */

#include "basic/fault.h"
#include "basic/macro.h"

#define TEMPLATE_FILE_MAX (64 * KIB)

typedef struct TemplateFile {
        char *description;
        char **aliases;
        char *suite; /* "" or NULL: the host's */
        char *variant;
        char **packages;
        char **exclude_paths;
        char **include_paths;
        char *compression;
        char *hostname;
        char *default_user;
        char **env;             /* "NAME=value" */
        uint32_t default_vcpus; /* 0: the configuration's, as the next */
        uint64_t default_memory_bytes;
} TemplateFile;

void template_file_done(TemplateFile *f);

/* name: of the file, for errors, which are FAULT_INVALID_ARGS "<name>:<line>: …". text: changed. *ret on
 * success only. */
int template_file_parse(const char *name, char *text, TemplateFile *ret, Fault *reterr);

/* Looks for <template>.template in the directories, first one wins. FAULT_NOT_FOUND names them all. */
int template_file_load(const char *const *dirs, const char *template, TemplateFile *ret, Fault *reterr);
