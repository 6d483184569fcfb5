// top: the terminal around Top_view.
#include <poll.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdlib>

#include "core/cli/commands.h"
#include "core/cli/screen_config.h"
#include "core/cli/top_view.h"
#include "core/runtime/real_clock.h"

// Last, and without its macros: they have the names of other things.
#define NCURSES_NOMACROS
#include <curses.h>

namespace pstorage::cli {
namespace {

constexpr std::uint32_t events_shown = 200;

struct Top_options {
  bool is_numeric = false;
  unsigned refresh_ms = 0;  // 0: as configured
  std::string mds_sort, cs_sort, client_sort;
};

struct News {
  proto::Status_reply status;
  std::vector<proto::Event> events;
};

Outcome<News> fetch(Cli& cli) {
  News news;
  proto::Mds_request request;
  request.mutable_get_status();
  PS_TRY(auto const status, cli.ask(std::move(request)));
  news.status = status.cluster_status();
  proto::Mds_request events;
  events.mutable_get_events()->set_newest(events_shown);
  PS_TRY(auto const reply, cli.ask(std::move(events)));
  news.events = {reply.events().events().begin(), reply.events().events().end()};
  return news;
}

/// The terminal; it is as it was when this is gone. ncurses itself restores it at SIGINT, SIGTERM.
class Screen {
 public:
  /// After newterm().
  Screen() {
    ::cbreak();
    ::noecho();
    ::curs_set(0);
    ::keypad(stdscr, TRUE);
    ::set_escdelay(25);
    if (::getenv("NO_COLOR") != nullptr || !::has_colors()) return;
    has_colours_ = true;
    ::start_color();
    ::use_default_colors();
    ::init_pair(1, COLOR_GREEN, -1);
    ::init_pair(2, COLOR_YELLOW, -1);
    ::init_pair(3, COLOR_RED, -1);
  }
  ~Screen() { ::endwin(); }
  Screen(Screen const&) = delete;
  Screen& operator=(Screen const&) = delete;

  void draw(std::vector<Line> const& lines) {
    ::erase();
    for (std::size_t row = 0; row < lines.size(); ++row) {
      ::attrset(attributes(lines[row].style));
      ::mvaddnstr(static_cast<int>(row), 0, lines[row].text.c_str(), COLS);
    }
    ::refresh();
  }

 private:
  attr_t attributes(Style style) const {
    auto const colour = [this](short pair) { return has_colours_ ? COLOR_PAIR(pair) : A_NORMAL; };
    switch (style) {
      case Style::plain:
        return A_NORMAL;
      case Style::heading:
        return A_BOLD;
      case Style::good:
        return colour(1);
      case Style::warning:
        return colour(2) | A_BOLD;
      case Style::bad:
        return colour(3) | A_BOLD;
    }
    return A_NORMAL;
  }
  bool has_colours_ = false;
};

int key_of(int curses_key) {
  switch (curses_key) {
    case KEY_UP:
      return key_up;
    case KEY_DOWN:
      return key_down;
    case KEY_PPAGE:
      return key_page_up;
    case KEY_NPAGE:
      return key_page_down;
    case KEY_HOME:
      return key_home;
    case KEY_END:
      return key_end;
    default:
      return curses_key;
  }
}

/// Draws and serves keys until the next refresh is due. False: the user wants to leave.
bool serve_keys(Screen& screen, Top_view& view, Duration until_refresh) {
  Real_clock const clock;
  auto const end = clock.now() + until_refresh;
  while (true) {
    view.set_size(static_cast<std::size_t>(COLS), static_cast<std::size_t>(LINES));
    screen.draw(view.lines());
    auto const left = (end - clock.now()) / std::chrono::milliseconds(1);
    if (left <= 0) return true;
    ::timeout(static_cast<int>(left));
    int const key = ::getch();
    if (key == ERR) {
      // A terminal that is gone answers at once: it has no user any more.
      pollfd input{STDIN_FILENO, POLLIN, 0};
      if (::poll(&input, 1, 0) == 1 && (input.revents & (POLLHUP | POLLERR)) != 0) return false;
      continue;
    }
    if (key != KEY_RESIZE && !view.on_key(key_of(key))) return false;
  }
}

Outcome<void> set_sort(Top_view& view, Table_kind kind, std::string const& text,
                       std::vector<Sort_key> keys) {
  if (!text.empty()) {
    PS_TRY(keys, parse_sort(kind, text));
  }
  view.set_sort(kind, std::move(keys));
  return success();
}

Outcome<void> top(Cli& cli, Top_options const& options) {
  PS_TRY(auto const config, load_screen_config());
  Top_view view(options.is_numeric || config.is_numeric);
  PS_CHECK(set_sort(view, Table_kind::mds, options.mds_sort, config.mds));
  PS_CHECK(set_sort(view, Table_kind::cs, options.cs_sort, config.cs));
  PS_CHECK(set_sort(view, Table_kind::client, options.client_sort, config.client));
  if (::isatty(STDIN_FILENO) == 0 || ::isatty(STDOUT_FILENO) == 0) {
    return failure(Errc::refused, "top needs a terminal: use 'pstorage stat --watch'");
  }
  // The first answer before the screen: what is wrong is then said as by every other command.
  PS_TRY(auto first, fetch(cli));
  view.show(std::move(first.status), first.events);
  auto const* const terminal = ::getenv("TERM");
  if (::newterm(nullptr, stdout, stdin) == nullptr) {
    return failure(Errc::refused, std::string("the terminal '") +
                                      (terminal == nullptr ? "" : terminal) +
                                      "' is not known: set TERM, or use 'pstorage stat --watch'");
  }
  std::chrono::milliseconds const refresh(options.refresh_ms == 0 ? config.refresh_ms
                                                                  : options.refresh_ms);
  Screen screen;
  while (serve_keys(screen, view, refresh)) {
    auto news = fetch(cli);
    if (news.has_value()) {
      view.show(std::move(news.value().status), news.value().events);
    } else {
      view.show_trouble(news.error().text);
    }
  }
  return success();
}

}  // namespace

void add_top_commands(Cli& cli) {
  auto const options = std::make_shared<Top_options>();
  auto* const command = cli.add_command("top", "Shows the state of the cluster all the time",
                                        [&cli, options] { return top(cli, *options); });
  command->add_flag("-n,--numeric", options->is_numeric, "Addresses of hosts, not names");
  command
      ->add_option("-T,--refresh", options->refresh_ms,
                   "Milliseconds between refreshes (default: pstorage.conf, 2000)")
      ->check(CLI::Range(refresh_ms_min, refresh_ms_max));
  command->add_option("-s", options->mds_sort, "Sort MDS: COLUMN[=inv],...");
  command->add_option("-S", options->cs_sort, "Sort CS: COLUMN[=inv],...");
  command->add_option("-O", options->client_sort, "Sort clients: COLUMN[=inv],...");
}

}  // namespace pstorage::cli
