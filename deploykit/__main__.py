from deploykit.cli.main import main

main()
