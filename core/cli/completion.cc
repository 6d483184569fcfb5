#include "core/cli/completion.h"

#include <CLI/CLI.hpp>

#include "core/cli/commands.h"

namespace pstorage::cli {
namespace {

/// All forms of an option, as on the command line.
std::vector<std::string> forms_of(CLI::Option const& option) {
  std::vector<std::string> forms;
  for (auto const& name : option.get_snames()) forms.push_back("-" + name);
  for (auto const& name : option.get_lnames()) forms.push_back("--" + name);
  return forms;
}

/// The values that are possible, with blanks between; empty: any.
std::string choices_of(CLI::Option const& option) {
  auto const type = option.get_type_name();  // "TEXT:{INF,WRN,ERR}"
  auto const begin = type.find('{');
  auto const end = type.find('}');
  if (begin == std::string::npos || end == std::string::npos) return {};
  auto choices = type.substr(begin + 1, end - begin - 1);
  std::replace(choices.begin(), choices.end(), ',', ' ');
  return choices;
}

struct Script {
  std::string commands;  // patterns of a case: "PATH COMMAND"
  std::string values;    // cases: "PATH OPTION", for options with a value
  std::string words;     // cases: "PATH"
};

void collect(CLI::App const& app, std::string const& path, Script& script) {
  std::string words;
  for (auto const* const command : app.get_subcommands([](CLI::App const*) { return true; })) {
    auto const below = path + " " + command->get_name();
    words += (words.empty() ? "" : " ") + command->get_name();
    script.commands += (script.commands.empty() ? "" : " | ") + ("'" + below + "'");
    collect(*command, below, script);
  }
  for (auto const* const option : app.get_options()) {
    auto const forms = forms_of(*option);
    auto const choices = choices_of(*option);
    if (forms.empty() && !choices.empty()) words += (words.empty() ? "" : " ") + choices;
    std::string patterns;
    for (auto const& form : forms) {
      words += (words.empty() ? "" : " ") + form;
      patterns += (patterns.empty() ? "" : " | ") + ("'" + path + " " + form + "'");
    }
    // An optional value may be left away: then the next word is something else.
    if (patterns.empty() || option->get_items_expected_min() == 0) continue;
    script.values += "    " + patterns + ") values='" + choices + "' ;;\n";
  }
  script.words += "    '" + path + "') words='" + words + "' ;;\n";
}

}  // namespace

std::string bash_completion(CLI::App const& app) {
  Script script;
  collect(app, "", script);
  return "# bash completion of pstorage, made by 'pstorage completion bash'\n"
         "_pstorage_values() { # PATH OPTION: fails when the option takes no value\n"
         "  values=\n"
         "  case \"$1 $2\" in\n" +
         script.values +
         "    *) return 1 ;;\n"
         "  esac\n"
         "}\n"
         "_pstorage() {\n"
         "  local word=${COMP_WORDS[COMP_CWORD]} path='' words='' values='' i\n"
         "  COMPREPLY=()\n"
         "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
         "    if _pstorage_values \"$path\" \"${COMP_WORDS[i]}\" ||\n"
         "      _pstorage_values '' \"${COMP_WORDS[i]}\"; then\n"
         "      if ((i + 1 == COMP_CWORD)); then\n"
         "        case \"${COMP_WORDS[i]}\" in\n"
         "          -c | --cluster)\n"
         "            values=$(ls \"${PSTORAGE_ETC:-/etc/pstorage}/clusters\" 2>/dev/null)\n"
         "            ;;\n"
         "        esac\n"
         "        mapfile -t COMPREPLY < <(compgen -W \"$values\" -- \"$word\")\n"
         "        return\n"
         "      fi\n"
         "      i=$((i + 1))\n"
         "      continue\n"
         "    fi\n"
         "    case \"$path ${COMP_WORDS[i]}\" in\n"
         "      " +
         script.commands +
         ")\n"
         "        path+=\" ${COMP_WORDS[i]}\"\n"
         "        ;;\n"
         "    esac\n"
         "  done\n"
         "  case \"$path\" in\n" +
         script.words +
         "  esac\n"
         "  mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n"
         "}\n"
         "complete -o default -F _pstorage pstorage\n";
}

void add_completion_commands(Cli& cli) {
  auto const shell = std::make_shared<std::string>();
  auto* const command = cli.add_command(
      "completion", "Prints what a shell needs to complete commands and options", [&cli] {
        auto const script = bash_completion(cli.app());
        std::fwrite(script.data(), 1, script.size(), stdout);
        return Outcome<void>(success());
      });
  command->add_option("SHELL", *shell, "bash")->required()->check(CLI::IsMember({"bash"}));
}

}  // namespace pstorage::cli
