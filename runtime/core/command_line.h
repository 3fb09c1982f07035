// What the programs' command lines have in common.
#pragma once
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "core/result.h"
#include "core/suggestion.h"

namespace hobbes {

/// Why a command line cannot be understood, with the command or option that is nearest to the first
/// word which `app` does not know.
inline Error usage_error(const CLI::App& app, const CLI::ParseError& error, int argc,
                         const char* const* argv) {
  const CLI::App* verb = &app;
  std::string remedy = "see `" + app.get_name() + " --help`";
  for (int i = 1; i < argc; ++i) {
    std::string word = argv[i];
    if (word.rfind('-', 0) == 0) {
      std::string name = word.substr(0, word.find('='));
      const CLI::Option* option = verb->get_option_no_throw(name);
      if (option == nullptr) option = app.get_option_no_throw(name);
      if (option == nullptr && name.rfind("--", 0) == 0) {
        std::vector<std::string> names;
        for (const CLI::App* scope : {verb, &app})
          for (const CLI::Option* known : scope->get_options())
            for (const std::string& long_name : known->get_lnames())
              names.push_back("--" + long_name);
        remedy = did_you_mean(name, names, remedy);
        break;
      }
      if (option != nullptr && name == word && option->get_items_expected_max() > 0) ++i;
      continue;
    }
    if (verb != &app) continue;
    const CLI::App* named = nullptr;
    std::vector<std::string> names;
    for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
      names.push_back(sub->get_name());
      if (sub->check_name(word)) named = sub;
    }
    if (named == nullptr) {
      remedy = did_you_mean(word, names, remedy);
      return {Code::invalid, "understand the command line", "there is no command '" + word + "'",
              remedy};
    }
    verb = named;
    remedy = "see `" + app.get_name() + " " + verb->get_name() + " --help`";
  }
  return {Code::invalid, "understand the command line", error.what(), remedy};
}

}  // namespace hobbes
